-- Adds a member to sets.
-- ARGV: the member, then the sets.

redis.call('ZREM', LEASES, '')
for at = 2, #ARGV do redis.call('SADD', ARGV[at], ARGV[1]) end
