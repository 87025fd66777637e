-- Asks whether a device may connect, as an EMQX does: SECRET, FIRST, LAST. Each device comes once,
-- in order; if LAST is FIRST, the same device is asked about repeatedly.

require "report"

local head, first, last, n

local BODY = '{"username": "device_bench-%08d", "password": "password of bench-%08d", ' ..
   '"clientid": "mooring-bench-%08d"}'

function init(args)
   head = "POST /emqx/authenticate HTTP/1.1\r\nHost: " .. wrk.headers["Host"] ..
      "\r\nAuthorization: Bearer " .. args[1] ..
      "\r\nContent-Type: application/json\r\nContent-Length: " ..
      #string.format(BODY, 1, 1, 1) .. "\r\n\r\n"
   first, last = tonumber(args[2]), tonumber(args[3])
   n = first - 1
end

function request()
   n = n + 1
   if n > last then
      n = first
   end
   return head .. string.format(BODY, n, n, n)
end
