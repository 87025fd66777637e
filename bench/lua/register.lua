-- Registers one new device after the other on every connection: KEY, SEED.

require "report"
local devices = require "devices"

local register, seed
local n = 0

function init(args)
   register = devices.registration(args[1])
   -- Threads have states of their own, and must not make the same devices.
   seed = tonumber(args[2]) + index
end

local report_setup = setup
local count = 0
function setup(thread)
   report_setup(thread)
   thread:set("index", count)
   count = count + 1
end

function request()
   n = n + 1
   return register(devices.uuid(seed, n))
end
