-- Goes before scripts of others: a write that can't grow memory, see scripts.py.

redis.call('ZREM', LEASES, '')
