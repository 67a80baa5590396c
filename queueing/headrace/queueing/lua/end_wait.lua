-- Ends a consumer's wait for doorbells.
-- ARGV: the list of its token, for how many seconds that is kept.

redis.call('ZREM', LEASES, '')
redis.call('LPUSH', ARGV[1], 1)
redis.call('EXPIRE', ARGV[1], ARGV[2])
