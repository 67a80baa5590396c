-- Notes a consumer among those of each of its queues, and drops those whose lease has ended.
-- ARGV: consumer, lease in ms, then queues.

redis.call('ZREM', KEY_LEASES, '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  local consumers = KEY_CONSUMERS .. ARGV[at]
  redis.call('ZREMRANGEBYSCORE', consumers, '-inf', now)
  redis.call('ZADD', consumers, now + tonumber(ARGV[2]), ARGV[1])
  redis.call('EXPIRE', consumers, CONSUMERS_TTL_S)
end
