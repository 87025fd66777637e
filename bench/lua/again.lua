-- Registers the same COUNT devices repeatedly: KEY, SEED, COUNT. Use one thread only.

require "report"
local devices = require "devices"

local register, seed, count
local n = 0

function init(args)
   register = devices.registration(args[1])
   seed, count = tonumber(args[2]), tonumber(args[3])
end

function request()
   n = n % count + 1
   return register(devices.uuid(seed, n))
end
