-- Takes a message from those that a consumer holds, and keeps it until a claim puts it back at the head of its queue.
-- ARGV: consumer, tag, milliseconds to keep it, '1' to count a retry.
-- Returns 1, or 0 when the consumer holds no such message.

local held, tag = IN_FLIGHT .. ARGV[1], ARGV[2]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', held, tag)
if not message then return 0 end
local name = ARGV[1] .. ':' .. tag
redis.call('HSET', DELAYED_MESSAGES, name, message)
redis.call('ZADD', DELAYED, now_ms() + tonumber(ARGV[3]), name)
redis.call('HDEL', held, tag)
if ARGV[4] == '1' then
  redis.call('HINCRBY', RETRIES, redis.sha1hex(message), 1)
  redis.call('EXPIRE', RETRIES, DELIVERIES_TTL_S)
end
return 1
