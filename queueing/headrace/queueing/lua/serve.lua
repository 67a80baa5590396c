-- Notes what a consumer serves.
-- ARGV: consumer, for how many seconds it is kept, then fields and values.

redis.call('ZREM', LEASES, '')
redis.call('HSET', KEY_SERVED .. ARGV[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEY_SERVED .. ARGV[1], ARGV[2])
