-- Renews a consumer's lease.
-- ARGV: consumer, lease in ms.
-- Returns how many messages the consumer holds, and 1 if its lease had ended meanwhile and messages were taken from it
-- (come_back.lua).

redis.call('ZREM', LEASES, '')
local held = redis.call('HLEN', IN_FLIGHT .. ARGV[1])
if held > 0 then redis.call('ZADD', LEASES, now_ms() + tonumber(ARGV[2]), ARGV[1]) end
return {held, redis.call('EXISTS', RETURNED .. ARGV[1])}
