-- Writes something that expires, to learn whether the server takes writes.

redis.call('ZREM', LEASES, '')
redis.call('SET', KEY_PROBE, '', 'EX', 1)
