-- Lists the delayed messages that are due next.
-- ARGV: most entries.
-- Returns for each its name, the time when it is due in milliseconds, and the end of the message.

local answer = {}
local names = redis.call('ZRANGE', KEY_DELAYED, 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for at = 1, #names, 2 do
  local message = redis.call('HGET', KEY_DELAYED_MESSAGES, names[at]) or ''
  answer[#answer + 1] = {names[at], names[at + 1], string.sub(message, -TAIL_BYTES)}
end
return answer
