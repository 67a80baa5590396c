-- Lists the messages that were taken from a living consumer when its lease ended, and takes back the crashes that were
-- noted of it.
-- ARGV: consumer.
-- Returns a flat list of [tag, SHA-1 of the message].

local function withdraw(sha, line)
  local lines = '\n' .. (redis.call('HGET', DEATHS, sha) or '')
  local from, to = string.find(lines, '\n' .. line .. '\n', 1, true)
  if not from then return end
  lines = string.sub(lines, 2, from) .. string.sub(lines, to + 1)
  if lines == '' then redis.call('HDEL', DEATHS, sha) else redis.call('HSET', DEATHS, sha, lines) end
end

redis.call('ZREM', LEASES, '')
local returned, answer = redis.call('HGETALL', RETURNED .. ARGV[1]), {}
for at = 1, #returned, 2 do
  local sha, line = string.sub(returned[at + 1], 1, 40), string.sub(returned[at + 1], 41)
  if line ~= '' then withdraw(sha, line) end
  answer[#answer + 1] = returned[at]
  answer[#answer + 1] = sha
end
redis.call('DEL', RETURNED .. ARGV[1])
return answer
