-- Acknowledges messages about which something is remembered: they came back before, or were taken from the consumer
-- when its lease ended. One that it no longer holds, and nobody else has finished, is not run again.
-- ARGV: consumer, then the tag and the SHA-1 of each message.

redis.call('ZREM', LEASES, '')
for at = 2, #ARGV, 2 do
  local sha = ARGV[at + 1]
  if redis.call('HDEL', IN_FLIGHT .. ARGV[1], ARGV[at]) == 1 then
    forget_counts_of(sha)
  elseif redis.call('HEXISTS', DELIVERIES, sha) == 1 then
    redis.call('HSET', DELIVERIES, sha, DONE)
  end
end
