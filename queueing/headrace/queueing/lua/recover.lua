-- Puts a message that a worker of `redis://` held at the head of its lists, unless somebody else did or its worker has
-- acknowledged it.
-- KEYS: kombu's two, then list and doorbell of each queue.
-- ARGV: tag, SHA-1 of what is noted of the message, the message.
-- Returns 1 or 0.

local noted = redis.call('HGET', KEYS[1], ARGV[1])
if not noted or redis.sha1hex(noted) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
for at = 3, #KEYS, 2 do
  redis.call('RPUSH', KEYS[at], ARGV[3])
  redis.call('DEL', KEYS[at + 1])
  redis.call('LPUSH', KEYS[at + 1], '1')
  redis.call('EXPIRE', KEYS[at + 1], BELL_TTL_S)
end
return 1
