-- Reads the ids of the next messages of a list.
-- ARGV: a list, the index of the first message.
-- Returns the next index, or -1 at the end, then the ids.

local at, count, bytes, run, longest = tonumber(ARGV[2]), 0, 0, 1, 1
local answer = {0}
while count < PIECE_MESSAGES and bytes < PIECE_BYTES do
  local some = redis.call('LRANGE', ARGV[1], at, at + run - 1)
  for _, message in ipairs(some) do
    answer[#answer + 1] = id_of(message)
    bytes, longest = bytes + #message, math.max(longest, #message)
  end
  at, count = at + #some, count + #some
  if #some < run then
    at = -1
    break
  end
  run = math.max(1, math.min(PIECE_RUN, PIECE_MESSAGES - count, math.floor((PIECE_BYTES - bytes) / longest)))
end
answer[1] = at
return answer
