-- Removes a dead letter.
-- ARGV: dead-letter id, '1' to put the message back on its queue as if it had never been delivered.
-- Returns 1, or 0 when there is no such letter.

local id = ARGV[1]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', KEY_DEAD_MESSAGES, id)
local letter = redis.call('HGET', KEY_DEAD_LETTERS, id)
if not message or not letter then return 0 end
letter = cjson.decode(letter)
forget_counts(message)
if ARGV[2] == '1' then
  local list = letter.list_key
  if not list or list == '' then list = list_of(letter.queue, letter.step) end
  redis.call('LPUSH', PREFIX .. list, message)
  ring(letter.queue)
end
redis.call('HDEL', KEY_DEAD_MESSAGES, id)
redis.call('HDEL', KEY_DEAD_LETTERS, id)
redis.call('ZREM', KEY_DEAD_INDEX, id)
redis.call('ZREM', KEY_DEAD_QUEUE .. letter.queue, id)
if redis.call('HINCRBY', KEY_DEAD_COUNTS, letter.queue, -1) <= 0 then
  redis.call('HDEL', KEY_DEAD_COUNTS, letter.queue)
end
return 1
