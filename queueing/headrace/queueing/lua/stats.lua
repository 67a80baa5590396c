-- Counts messages.
-- ARGV: queues.
-- Returns for each queue its lengths (the most urgent step first), the ends of the oldest message of each list, the
-- number of its dead letters and the time of the oldest in seconds ('' for none); and last flat lists of [queue, messages
-- in flight] and [queue, messages delayed].

local answer, in_flight, delayed = {}, {}, {}

local function flattened(counts)
  local flat = {}
  for queue, count in pairs(counts) do
    flat[#flat + 1] = queue
    flat[#flat + 1] = count
  end
  return flat
end

for _, queue in ipairs(ARGV) do
  local lengths, tails = {}, {}
  for _, step in ipairs(steps_of(queue)) do
    local list = list_of(queue, step)
    lengths[#lengths + 1] = redis.call('LLEN', PREFIX .. list)
    tails[#tails + 1] = string.sub(redis.call('LINDEX', PREFIX .. list, -1) or '', -TAIL_BYTES)
  end
  local oldest = redis.call('ZRANGE', KEY_DEAD_QUEUE .. queue, 0, 0, 'WITHSCORES')[2] or ''
  local dead = tonumber(redis.call('HGET', KEY_DEAD_COUNTS, queue) or 0)
  answer[#answer + 1] = {lengths, tails, dead, oldest}
end
for _, consumer in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  for _, tag in ipairs(redis.call('HKEYS', IN_FLIGHT .. consumer)) do
    local queue = queue_of(string.sub(tag, string.find(tag, ':', 1, true) + 1))
    in_flight[queue] = (in_flight[queue] or 0) + 1
  end
end
for _, name in ipairs(redis.call('ZRANGE', DELAYED, 0, -1)) do
  local queue = queue_of(string.match(name, '^[^:]*:%d+:(.*)$'))
  delayed[queue] = (delayed[queue] or 0) + 1
end
answer[#answer + 1] = flattened(in_flight)
answer[#answer + 1] = flattened(delayed)
return answer
