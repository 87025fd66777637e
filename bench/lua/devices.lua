-- New devices: their uuids are random like real ones, so that they spread over the whole index, and
-- each has a request that registers it.

local bit = require "bit"
local ffi = require "ffi"

local GOLDEN = 0x9E3779B97F4A7C15ULL

-- splitmix64: maps each number to another one without a visible pattern.
local function mixed(z)
   z = bit.bxor(z, bit.rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
   z = bit.bxor(z, bit.rshift(z, 27)) * 0x94D049BB133111EBULL
   return bit.bxor(z, bit.rshift(z, 31))
end

local devices = {}

-- The nth device of a run; runs differ in their `seed`, a whole number below 2^31.
function devices.uuid(seed, n)
   local z = mixed((ffi.cast("uint64_t", seed) * 0x100000000ULL + n) * GOLDEN)
   local high = bit.tohex(z, 16)
   local low = bit.tohex(mixed(z + GOLDEN), 16)
   return high:sub(1, 8) .. "-" .. high:sub(9, 12) .. "-4" .. high:sub(14, 16) .. "-a" ..
      low:sub(2, 4) .. "-" .. high:sub(13, 13) .. low:sub(6, 16)
end

local BODY = '{"uuid": "%s", "deviceName": "Test Device", "deviceType": "raspberry-pi-4", ' ..
   '"deviceApiKey": "%s"}'

-- Returns a function that makes the request for a uuid; `request_id` may be left out.
function devices.registration(key)
   local length = #string.format(BODY, string.rep("u", 36), string.rep("u", 36))
   local head = "POST /api/v1/device/register HTTP/1.1\r\nHost: " .. wrk.headers["Host"] ..
      "\r\nAuthorization: Bearer " .. key ..
      "\r\nContent-Type: application/json\r\nContent-Length: " .. length .. "\r\n"
   return function(uuid, request_id)
      local id = request_id and ("X-Request-Id: " .. request_id .. "\r\n\r\n") or "\r\n"
      return head .. id .. string.format(BODY, uuid, uuid)
   end
end

return devices
