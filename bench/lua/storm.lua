-- Devices that all power up at once, and are polite: KEY, SEED, COUNT.
--
-- A device that is told 503 or 429 comes back after Retry-After; one that hears nothing for a while
-- asks again, which is safe. Connections are fewer than devices, so whichever connection is free
-- serves the next device. One thread only: threads would not see one another's devices.

require "report"
local devices = require "devices"
local ffi = require "ffi"

ffi.cdef [[
   struct moment { long seconds; long nanoseconds; };
   int clock_gettime(int clock, struct moment *now);
   int getpid(void);
   int kill(int pid, int signal);
]]

local MONOTONIC, SIGINT = 1, 2
local SILENCE_S = 15
local moment = ffi.new("struct moment")

local function now()
   ffi.C.clock_gettime(MONOTONIC, moment)
   return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

-- What is waiting to be sent again, the earliest first: a binary heap.
local heap = {}

local function push(at, device)
   local i = #heap + 1
   heap[i] = {at = at, device = device}
   while i > 1 and heap[math.floor(i / 2)].at > heap[i].at do
      local above = math.floor(i / 2)
      heap[i], heap[above] = heap[above], heap[i]
      i = above
   end
end

local function pop()
   local first, last = heap[1], table.remove(heap)
   if #heap > 0 then
      heap[1] = last
      local i = 1
      while true do
         local least = i
         for below = 2 * i, 2 * i + 1 do
            if below <= #heap and heap[below].at < heap[least].at then least = below end
         end
         if least == i then break end
         heap[i], heap[least] = heap[least], heap[i]
         i = least
      end
   end
   return first.device
end

local register, seed, nothing
local begun_at
local sent_at = {}     -- of the devices in flight
local is_done = {}
-- In the order in which they were sent: who is silent for too long is at its head.
local sent, head, tail = {}, 1, 0
local next_device = 1
-- How many of those on the heap have a connection that sleeps until they are due.
local awaited = 0
local verified = false

wanted, registered, retries, resent, unhealed, storm_s = 0, 0, 0, 0, 0, 0
counters = {"wanted", "registered", "retries", "resent", "unhealed", "storm_s"}

function init(args)
   register = devices.registration(args[1])
   seed, wanted = tonumber(args[2]), tonumber(args[3])
   nothing = wrk.format("GET", "/healthz")
   begun_at = now()
end

-- The device whose turn it is, or nil.
local function due(at)
   if #heap > 0 and heap[1].at <= at then
      retries = retries + 1
      awaited = math.max(0, awaited - 1)
      return pop()
   end
   while head <= tail do
      local oldest = sent[head]
      if sent_at[oldest.device] ~= oldest.at then
         sent[head] = nil
         head = head + 1
      elseif at - oldest.at > SILENCE_S then
         resent = resent + 1
         return oldest.device
      else
         break
      end
   end
   if next_device <= wanted then
      next_device = next_device + 1
      return next_device - 1
   end
end

-- In milliseconds, how long a connection that has become free stays so. One that wakes must send
-- something, so that of two thousand only as many wake as are needed.
function delay()
   if next_device <= wanted then return 0 end
   if awaited < #heap then
      awaited = awaited + 1
      -- A heap is sorted nearly enough.
      return math.max(0, math.ceil((heap[awaited].at - now()) * 1000))
   end
   -- Somebody has to notice silence, and servers close what is idle for five seconds.
   return math.random(3000, 4500)
end

function request()
   if not verified then
      -- wrk looks at one request that it does not send.
      verified = true
      return nothing
   end
   local at = now()
   local device = due(at)
   if not device then return nothing end
   sent_at[device] = at
   tail = tail + 1
   sent[tail] = {device = device, at = at}
   return register(devices.uuid(seed, device), device)
end

local function finish(device)
   is_done[device] = true
   sent_at[device] = nil
   if registered + unhealed == wanted then
      storm_s = now() - begun_at
      wrk.thread:stop()
      -- Else wrk would sleep on until its time is up.
      ffi.C.kill(ffi.C.getpid(), SIGINT)
   end
end

local function header(headers, name)
   for given, value in pairs(headers) do
      if given:lower() == name then return value end
   end
end

function response(status, headers, body)
   local device = tonumber(header(headers, "x-request-id"))
   -- Ids that we did not give are those of the requests for nothing.
   if not device or not sent_at[device] or is_done[device] then return end
   if status == 200 or status == 201 then
      registered = registered + 1
      finish(device)
   elseif status == 503 or status == 429 then
      sent_at[device] = nil
      push(now() + (tonumber(header(headers, "retry-after")) or 1), device)
   else
      unhealed = unhealed + 1
      finish(device)
   end
end
