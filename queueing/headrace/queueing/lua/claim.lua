-- Claims messages: takes them out of their lists and registers them as held by a consumer, under its lease.
-- First moves delayed messages that are due to the head of their queues.
-- ARGV: consumer, lease in ms, most bytes of a message (0: no limit), first sequence number, most messages in all,
-- most bytes, then for each queue its name, how many messages are wanted, and 1 if it is consumed without
-- acknowledgement.
-- Returns a list: the milliseconds until another delayed message is due (-1: none is), then for each list taken from
-- [index of the queue, step, first sequence number, messages, notes]; notes is a flat list of [index of the message,
-- earlier deliveries, SHA-1 of the message, its bytes, lines of crashes, retries, 1 if it was redelivered in any way]
-- for messages that are not ordinary.

local consumer, max_bytes, seq, left = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held, groups, registered, failure, bytes = IN_FLIGHT .. consumer, {-1}, false, nil, 0
local most_bytes, counting, many = tonumber(ARGV[6]), false, #ARGV > 6 + 3 * 4

local function lists_of(queue, lists)
  for _, step in ipairs(steps_of(queue)) do lists[#lists + 1] = PREFIX .. list_of(queue, step) end
  return lists
end

-- Idle consumers ask again and again: one look shows that there is nothing.
local function nothing_waits()
  local lists = {}
  for at = 7, #ARGV, 3 do
    lists_of(ARGV[at], lists)
    if #lists >= LISTS_AT_ONCE or at + 3 > #ARGV then
      if redis.call('EXISTS', unpack(lists)) > 0 then return false end
      lists = {}
    end
  end
  return true
end

local function move_due()
  redis.call('ZREM', LEASES, '')
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now_ms(), 'LIMIT', 0, DUE_MESSAGES)) do
    local message = redis.call('HGET', DELAYED_MESSAGES, name)
    if message then
      local list = string.match(name, '^[^:]*:%d+:(.*)$')
      redis.call('RPUSH', PREFIX .. list, message)
      ring(queue_of(list))
    end
    redis.call('HDEL', DELAYED_MESSAGES, name)
    redis.call('ZREM', DELAYED, name)
  end
  local first = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  if first then groups[1] = math.max(0, math.ceil(first - now_ms())) end
end

local function register(list, messages)
  for from = 1, #messages, 500 do
    local fields = {}
    for i = from, math.min(from + 499, #messages) do
      fields[#fields + 1] = (seq + i - 1) .. ':' .. list
      fields[#fields + 1] = messages[i]
    end
    redis.call('HSET', held, unpack(fields))
  end
  registered = true
end

local function without_done(messages)
  if not counting then return messages, {} end
  local left, shas = {}, {}
  for _, message in ipairs(messages) do
    local sha = redis.sha1hex(message)
    if redis.call('HGET', DELIVERIES, sha) == DONE then
      forget_counts(message)
    else
      left[#left + 1] = message
      shas[#left] = sha
    end
  end
  return left, shas
end

local function notes_on(messages, shas, no_ack)
  local notes = {}
  for i, message in ipairs(messages) do
    local sha, count, deaths, retries, back = '', 0, '', 0, 0
    if counting then
      sha = shas[i]
      local known = redis.call('HGET', DELIVERIES, sha)
      count = tonumber(known or 0)
      retries = tonumber(redis.call('HGET', RETRIES, sha) or 0)
      if count > 0 then deaths = redis.call('HGET', DEATHS, sha) or '' end
      if known or retries > 0 then back = 1 end
      if back == 1 and no_ack then forget_counts(message) end
    end
    local oversize = max_bytes > 0 and #message > max_bytes
    if back == 1 or oversize then
      for _, note in ipairs({i - 1, count, sha, #message, deaths, retries, back}) do notes[#notes + 1] = note end
    end
    if oversize then messages[i] = string.sub(message, -TAIL_BYTES) end
  end
  return notes
end

-- Pops a few messages first and then as many as fit the bytes by the size of those, but not many times as many, so that
-- a claim of large messages does not fill the server's memory. Messages over the limit go back at once.
local function pop(list, wanted)
  local messages, run, longest = {}, 4, 1
  while #messages < wanted and bytes < most_bytes do
    local some = redis.pcall('RPOP', PREFIX .. list, math.min(run, wanted - #messages))
    if some and some.err then failure = some end
    if not some or some.err then break end
    for _, message in ipairs(some) do
      messages[#messages + 1] = message
      bytes, longest = bytes + #message, math.max(longest, #message)
    end
    if #some < run then break end
    run = math.max(1, math.min(math.floor((most_bytes - bytes) / longest), 16 * #messages))
  end
  while #messages > 0 and bytes > most_bytes and bytes > #messages[#messages] do
    local message = table.remove(messages)
    redis.call('RPUSH', PREFIX .. list, message)
    bytes = bytes - #message
  end
  return messages
end

local function take(index, queue, wanted, no_ack)
  for _, step in ipairs(steps_of(queue)) do
    local list = list_of(queue, step)
    local messages, shas = without_done(pop(list, math.min(wanted, left)))
    if #messages > 0 then
      if not no_ack then register(list, messages) end
      groups[#groups + 1] = {index, step, seq, messages, notes_on(messages, shas, no_ack)}
      seq, wanted, left = seq + #messages, wanted - #messages, left - #messages
    end
  end
end

local function settle_bell(queue)
  if redis.call('EXISTS', unpack(lists_of(queue, {}))) > 0 then
    ring(queue)
  else
    redis.call('DEL', BELL .. queue)
  end
end

-- Seldom is there any of these three.
if redis.call('EXISTS', DELAYED, DELIVERIES, RETRIES) > 0 then
  if redis.call('EXISTS', DELAYED) == 1 then move_due() end
  counting = redis.call('EXISTS', DELIVERIES, RETRIES) > 0
end
if nothing_waits() then return groups end
for at = 7, #ARGV, 3 do
  if not many or redis.call('EXISTS', unpack(lists_of(ARGV[at], {}))) > 0 then
    take((at - 7) / 3, ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1')
    settle_bell(ARGV[at])
  end
end
if registered then redis.call('ZADD', LEASES, now_ms() + tonumber(ARGV[2]), consumer) end
if failure and #groups == 1 then return failure end
return groups
