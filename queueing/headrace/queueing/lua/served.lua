-- ARGV: queue.
-- Returns what its consumers with a live lease serve, equal answers once.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found, known = {}, {}
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEY_CONSUMERS .. ARGV[1], now, '+inf')) do
  local served = redis.call('HGET', KEY_SERVED .. consumer, ARGV[1])
  if served and not known[served] then
    known[served] = true
    found[#found + 1] = served
  end
end
return found
