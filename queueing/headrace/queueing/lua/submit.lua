-- Pushes messages to a queue as far as its limit allows, and rings its doorbell.
-- KEYS: the list to push to, the doorbell, then every priority list of the queue.
-- ARGV: the limit (0 is none), then the messages, oldest first.
-- Returns the number accepted, counted from the first.

local last = #ARGV
local limit = tonumber(ARGV[1])
if limit > 0 then
  local room = limit
  for at = 3, #KEYS do room = room - redis.call('LLEN', KEYS[at]) end
  if room <= 0 then return 0 end
  if last - 1 > room then last = room + 1 end
end
redis.call('LPUSH', KEYS[1], unpack(ARGV, 2, last))
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('LPUSH', KEYS[2], '1')
  redis.call('EXPIRE', KEYS[2], BELL_TTL_S)
end
return last - 1
