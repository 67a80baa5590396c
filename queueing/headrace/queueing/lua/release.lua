-- Puts messages of a consumer back.
-- ARGV: consumer, '1' if these messages may have been served already and count as delivered again, '1' to put them
-- behind all that wait rather than at the head, then tags in the order in which they are put back: at the head the last
-- claimed first.
-- Returns how many of these tags are settled; call again with the rest.

redis.call('ZREM', LEASES, '')
local tags = {}
for i = 4, #ARGV do tags[#tags + 1] = ARGV[i] end
return put_back(IN_FLIGHT .. ARGV[1], tags, ARGV[2] == '1', ARGV[3] == '1')
