-- Mixed reads, each connection ten times a second: LH_KEY, and the paths one a line in the file LH_PATHS.
local paths = {}
for path in io.lines(os.getenv("LH_PATHS")) do paths[#paths + 1] = path end
local headers = {["Authorization"] = "Bearer " .. os.getenv("LH_KEY")}
local number = 0

function delay() return math.random(0, 200) end

function request()
  number = number % #paths + 1
  return wrk.format("GET", paths[number], headers)
end

function done(summary, latency, requests)
  local wrong = summary.errors
  io.write(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "max": %f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, wrong.status, wrong.connect + wrong.read + wrong.write + wrong.timeout))
end
