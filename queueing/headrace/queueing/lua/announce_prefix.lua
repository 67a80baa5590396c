-- Goes on from announce.lua: notes the prefix among all prefixes. An ACL may not allow it, which does no harm.

redis.pcall('ZREMRANGEBYSCORE', PREFIXES, '-inf', now)
redis.pcall('ZADD', PREFIXES, 'GT', now + tonumber(ARGV[2]), PREFIX)
redis.pcall('EXPIRE', PREFIXES, CONSUMERS_TTL_S)
