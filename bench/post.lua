-- For wrk: posts messages to threads in turn, each request a message or a batch of them.
-- Arguments: the number of threads, that of messages in a request, who says them, and what each says.

local requests, last = {}, 0

function init(arguments)
  local threads, batch, source, text = tonumber(arguments[1]), tonumber(arguments[2]), arguments[3], arguments[4]
  for number = 1, threads do
    local thread_id = "load-" .. number
    if batch == 1 then
      local form = '{"message": "%s", "thread_id": "%s", "source": "%s"}'
      local body = string.format(form, text, thread_id, source)
      local headers = {["Content-Type"] = "application/json", ["Prefer"] = "respond-async"}
      requests[number] = wrk.format("POST", "/api/chat", headers, body)
    else
      local body = string.rep(string.format('{"message": "%s", "source": "%s"}\n', text, source), batch)
      local headers = {["Content-Type"] = "application/x-ndjson"}
      requests[number] = wrk.format("POST", "/api/threads/" .. thread_id .. "/messages", headers, body)
    end
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  local form = '{"answers": %d, "refusals": %d, "broken": %d, "median": %.6f, "p99": %.6f}\n'
  io.write(string.format(
    form, summary.requests, errors.status, broken, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6
  ))
end
