-- Devices that all power up at once, and obey Retry-After: KEY, SEED, COUNT.
--
-- A device that gets 503 or 429 retries after Retry-After; one without an answer retries after a
-- timeout, which is safe. There are fewer connections than devices, so any free connection serves
-- the next device. Use one thread only: threads would not see each other's devices.

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

-- Requests that wait for a retry, the earliest first: a binary heap.
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
-- Devices in flight in the order of sending: the one that has waited longest is first.
local sent, head, tail = {}, 1, 0
local next_device = 1
-- The number of entries of the heap for which a connection sleeps until they are due.
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

-- How many milliseconds a free connection stays free. A connection that wakes must send something,
-- so only as many of the two thousand wake as are needed.
function delay()
   if next_device <= wanted then return 0 end
   if awaited < #heap then
      awaited = awaited + 1
      -- The order of a heap is close enough to a sorted one.
      return math.max(0, math.ceil((heap[awaited].at - now()) * 1000))
   end
   -- A connection must check for timeouts, and servers close connections that are idle for five
   -- seconds.
   return math.random(3000, 4500)
end

function request()
   if not verified then
      -- wrk asks for one request that it does not send.
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
      -- Otherwise wrk would sleep until its time is up.
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
   -- Ids without a device are those of requests that register nothing.
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
