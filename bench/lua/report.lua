-- Prints the results of a run as the last line on stdout. Times are in seconds.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

local function total(counter)
   local sum = 0
   for _, thread in ipairs(threads) do
      sum = sum + (thread:get(counter) or 0)
   end
   return sum
end

-- Counters of the script; they are added up over the threads.
counters = {}

function done(summary, latency, requests)
   local own = {}
   for _, name in ipairs(counters) do
      table.insert(own, string.format(', "%s": %.6f', name, total(name)))
   end
   local errors = summary.errors
   io.write(string.format(
      '{"answers": %d, "seconds": %.6f, "refused": %d, "socket_errors": %d, ' ..
      '"p50_s": %.6f, "p99_s": %.6f, "max_s": %.6f%s}\n',
      -- `status` counts 400 and above; percentiles leave out requests slower than --timeout.
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6,
      table.concat(own)))
end
