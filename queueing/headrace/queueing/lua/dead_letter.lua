-- Moves a message to the dead letters.
-- ARGV: consumer, tag, dead-letter id, the letter as JSON; for a request without a row also its id, the reply to it, and
-- for how many seconds that is kept where its client finds it.
-- Returns 1, or 0 when the consumer holds no such message.

local held, tag, id = IN_FLIGHT .. ARGV[1], ARGV[2], ARGV[3]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', held, tag)
if not message then return 0 end
local queue = queue_of(string.sub(tag, string.find(tag, ':', 1, true) + 1))
redis.call('HSET', KEY_DEAD_MESSAGES, id, message)
redis.call('HSET', KEY_DEAD_LETTERS, id, ARGV[4])
if ARGV[5] then redis.call('SET', KEY_ANSWER .. ARGV[5], ARGV[6], 'EX', ARGV[7]) end
redis.call('HINCRBY', KEY_DEAD_COUNTS, queue, 1)
local now = redis.call('TIME')[1]
redis.call('ZADD', KEY_DEAD_INDEX, now, id)
redis.call('ZADD', KEY_DEAD_QUEUE .. queue, now, id)
redis.call('HDEL', held, tag)
forget_counts(message)
return 1
