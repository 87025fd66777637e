-- Like register.lua, but every 20 to 50 ms on each connection.

require "register"

function delay()
   return math.random(20, 50)
end
