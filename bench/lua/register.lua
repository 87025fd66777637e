-- Registers new devices on every connection: KEYS, SEED. Several keys are separated by commas and
-- used in turn.

require "report"
local devices = require "devices"

local registers, seed = {}, nil
local n = 0

function init(args)
   for key in args[1]:gmatch("[^,]+") do
      table.insert(registers, devices.registration(key))
   end
   -- Each thread has its own state, and must make other devices than the others.
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
   return registers[n % #registers + 1](devices.uuid(seed, n))
end
