-- Puts back all messages of a consumer.
-- ARGV: consumer, '1' to do it only if its lease has ended, and to count a delivery, and a crash for what it ran, and to
-- note what it held in case it is alive.
-- Returns how many messages it put back; call again until that is 0.

local consumer, dead = ARGV[1], ARGV[2] == '1'
redis.call('ZREM', LEASES, '')
local lease_end = redis.call('ZSCORE', LEASES, consumer)
if dead and (not lease_end or tonumber(lease_end) > now_ms()) then return 0 end
local held, lapse = IN_FLIGHT .. consumer, dead and {running = {}, line = '', key = RETURNED .. consumer}
local mark = dead and redis.call('GET', RUNNING .. consumer)
if mark then
  local worker, tags = string.match(mark, '^([^\n]*)(.*)$')
  for tag in string.gmatch(tags, '[^\n]+') do lapse.running[tag] = true end
  lapse.line = string.format('%d %s', now_ms(), worker)
end
local moved = put_back(held, redis.call('HKEYS', held), dead, false, lapse)
if redis.call('EXISTS', held) == 0 then
  redis.call('ZREM', LEASES, consumer)
  redis.call('DEL', RUNNING .. consumer)
end
return moved
