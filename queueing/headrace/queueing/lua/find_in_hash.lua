-- Reads the ids of messages in a hash.
-- ARGV: a hash of messages, then fields.
-- Returns how many of the fields it has read, then the ids.

local bytes, answer = 0, {#ARGV - 1}
for at = 2, #ARGV do
  local message = redis.call('HGET', ARGV[1], ARGV[at])
  if message then
    answer[#answer + 1] = id_of(message)
    bytes = bytes + #message
    if bytes >= PIECE_BYTES then
      answer[1] = at - 1
      break
    end
  end
end
return answer
