-- Sends the same request every 20 to 50 ms: TOKEN, which may be left out.

require "report"

function init(args)
   if args[1] then
      wrk.headers["Authorization"] = "Bearer " .. args[1]
   end
   math.randomseed(os.time())
end

function request()
   return wrk.format()
end

function delay()
   return math.random(20, 50)
end
