"""What runs inside the server: each function here is one atomic step.

They run on Valkey and on Redis from 6.2 on. They name keys that they compute, which a cluster does not
allow: cluster mode isn't supported. Texts name keys by `KEYS`, and put a mark before lists; `script` puts the
prefix of the client's keys in the place of both, which leaves nothing there without a prefix.

Every script first makes a write that can't grow memory, because a server at `maxmemory` refuses growing
writes only until a script has made its first write; so claiming, renewing and putting back go on when memory
is full, which is what empties it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.contracts.message import TASK_PREFIX
from headrace.queueing.keys import BELL_TTL_S, RETURNED_TTL_S, Keys, keys_of
from headrace.queueing.lists import MODEL_STEPS

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

#: Where `script` puts the prefix.
_PREFIX: Final = "<PREFIX>"

#: Stands before a Lua value that is the name of a list without prefix.
_LIST: Final = "<LIST>"

#: The keys as texts name them.
KEYS: Final = Keys(_PREFIX)

#: Of a message longer than a consumer wants, it gets the last bytes only: enough for the headers of an envelope.
TAIL_BYTES: Final = 8192

#: Most bytes that one claim takes, in which case it takes fewer messages than are wanted, but one at least.
CLAIM_BYTES: Final = 32 << 20

#: Most messages, and about the most bytes, that one call puts back; bounds how long the server is busy with it.
RESTORE_MESSAGES: Final = 500
RESTORE_BYTES: Final = 32 << 20

#: Most deaths whose time and worker are kept of one message; more than any setting asks for.
CRASHES_KEPT: Final = 100

#: Most delayed messages that one claim moves back to their queues.
DUE_MESSAGES: Final = 200

#: About as many lists are looked at in one command; Lua can't pass many thousands.
LISTS_AT_ONCE: Final = 500

#: Seconds after the last event at which the counts of deliveries, deaths and retries are forgotten.
DELIVERIES_TTL_S: Final = 7 * 86_400

_CONSTANTS: Final = rf"""
local SEP, OTHER_SEP, BELL, IN_FLIGHT = '\006\022', <SEPARATOR>, '{KEYS.doorbell("")}', '{KEYS.in_flight("")}'
local LEASES, DELIVERIES = '{KEYS.leases}', '{KEYS.deliveries}'
local DEATHS, RETRIES, RUNNING = '{KEYS.deaths}', '{KEYS.retries}', '{KEYS.running("")}'
local RETURNED = '{KEYS.returned("")}'
local DELAYED, DELAYED_MESSAGES = '{KEYS.delayed}', '{KEYS.delayed_messages}'
local MODEL_STEPS, OTHER_STEPS = {{{", ".join(map(str, MODEL_STEPS))}}}, {{<STEPS>}}
"""

_SHARED: Final = (
    _CONSTANTS
    + f"""
local function is_model(queue)
  return string.sub(queue, 1, {len(TASK_PREFIX)}) == '{TASK_PREFIX}'
end

local function list_of(queue, step)
  if step == 0 then return queue end
  return queue .. (is_model(queue) and SEP or OTHER_SEP) .. step
end

-- The steps of a queue, the most urgent first.
local function steps_of(queue)
  return is_model(queue) and MODEL_STEPS or OTHER_STEPS
end

local function queue_of(list)
  local step = string.match(list, '%d+$')
  if not step then return list end
  local sep = is_model(list) and SEP or OTHER_SEP
  local ends = #list - #step
  if string.sub(list, ends - #sep + 1, ends) ~= sep then return list end
  return string.sub(list, 1, ends - #sep)
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function forget_counts_of(sha)
  for _, counts in ipairs({{DELIVERIES, DEATHS, RETRIES}}) do redis.call('HDEL', counts, sha) end
end

local function forget_counts(message)
  forget_counts_of(redis.sha1hex(message))
end

-- What DELIVERIES holds in the place of a count once somebody has acknowledged a message after its lease had ended: it
-- is not to be run again.
local DONE = 'done'

local function ring(queue)
  if redis.call('EXISTS', BELL .. queue) == 0 then
    redis.call('LPUSH', BELL .. queue, '1')
    redis.call('EXPIRE', BELL .. queue, {BELL_TTL_S})
  end
end
"""
)

#: ARGV: consumer, lease in ms, most bytes of a message (0: no limit), first sequence number, most messages in all,
#: most bytes, then for each queue its name, how many messages are wanted, and 1 if it is consumed without
#: acknowledgement.
#: First moves delayed messages that are due to the head of their queues.
#: Gives a list: first the milliseconds until another delayed message is due (-1: none is); then, for what was taken,
#: [index of the queue, step, first sequence number, messages, notes]; notes is a flat list of [index of the message,
#: earlier deliveries, SHA-1 of the message, its bytes, lines of deaths, retries, 1 if it came back in whatever way] for
#: those that are not ordinary.
CLAIM: Final = (
    _SHARED
    + f"""
local consumer, max_bytes, seq, left = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held, groups, registered, failure, bytes = IN_FLIGHT .. consumer, {{-1}}, false, nil, 0
local most_bytes, counting, many = tonumber(ARGV[6]), false, #ARGV > 6 + 3 * 4

local function lists_of(queue, lists)
  for _, step in ipairs(steps_of(queue)) do lists[#lists + 1] = {_LIST}list_of(queue, step) end
  return lists
end

-- Idle consumers ask again and again: one look tells that there is nothing.
local function nothing_waits()
  local lists = {{}}
  for at = 7, #ARGV, 3 do
    lists_of(ARGV[at], lists)
    if #lists >= {LISTS_AT_ONCE} or at + 3 > #ARGV then
      if redis.call('EXISTS', unpack(lists)) > 0 then return false end
      lists = {{}}
    end
  end
  return true
end

local function move_due()
  redis.call('ZREM', LEASES, '')
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now_ms(), 'LIMIT', 0, {DUE_MESSAGES})) do
    local message = redis.call('HGET', DELAYED_MESSAGES, name)
    if message then
      local list = string.match(name, '^[^:]*:%d+:(.*)$')
      redis.call('RPUSH', {_LIST}list, message)
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
    local fields = {{}}
    for i = from, math.min(from + 499, #messages) do
      fields[#fields + 1] = (seq + i - 1) .. ':' .. list
      fields[#fields + 1] = messages[i]
    end
    redis.call('HSET', held, unpack(fields))
  end
  registered = true
end

local function without_done(messages)
  if not counting then return messages, {{}} end
  local left, shas = {{}}, {{}}
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
  local notes = {{}}
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
      for _, note in ipairs({{i - 1, count, sha, #message, deaths, retries, back}}) do notes[#notes + 1] = note end
    end
    if oversize then messages[i] = string.sub(message, -{TAIL_BYTES}) end
  end
  return notes
end

-- Pops a few messages first and then as many as fit the bytes by the size of those, but not many times as many, so that
-- a claim of large messages does not fill the server's memory. What is too much after all goes back at once.
local function pop(list, wanted)
  local messages, run, longest = {{}}, 4, 1
  while #messages < wanted and bytes < most_bytes do
    local some = redis.pcall('RPOP', {_LIST}list, math.min(run, wanted - #messages))
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
    redis.call('RPUSH', {_LIST}list, message)
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
      groups[#groups + 1] = {{index, step, seq, messages, notes_on(messages, shas, no_ack)}}
      seq, wanted, left = seq + #messages, wanted - #messages, left - #messages
    end
  end
end

local function settle_bell(queue)
  if redis.call('EXISTS', unpack(lists_of(queue, {{}}))) > 0 then
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
  if not many or redis.call('EXISTS', unpack(lists_of(ARGV[at], {{}}))) > 0 then
    take((at - 7) / 3, ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1')
    settle_bell(ARGV[at])
  end
end
if registered then redis.call('ZADD', LEASES, now_ms() + tonumber(ARGV[2]), consumer) end
if failure and #groups == 1 then return failure end
return groups
"""
)

_PUT_BACK: Final = f"""
local function note_death(sha, line)
  local lines = (redis.call('HGET', DEATHS, sha) or '') .. line .. '\\n'
  local _, count = string.gsub(lines, '\\n', '')
  if count > {CRASHES_KEPT} then lines = string.sub(lines, string.find(lines, '\\n', 1, true) + 1) end
  redis.call('HSET', DEATHS, sha, lines)
  redis.call('EXPIRE', DEATHS, {DELIVERIES_TTL_S})
end

-- Puts messages back at the head of their lists: the last claimed first, so that the first claimed is the next out.
-- Stops early when it moved many bytes; gives how many it moved. redelivered: count a delivery; without, it is only
-- noted that they came back. behind: put them behind all that wait in their lists. lapse: that of the consumer's lease,
-- with the set of tags that were running, the line to note of their death, and the key of what it held.
local function put_back(held, tags, redelivered, behind, lapse)
  local seq = {{}}
  for _, tag in ipairs(tags) do seq[tag] = tonumber(string.match(tag, '^%d+')) end
  table.sort(tags, function(a, b) return (seq[a] > seq[b]) ~= behind and seq[a] ~= seq[b] end)
  local bytes, moved, queues = 0, 0, {{}}
  for i = 1, math.min(#tags, {RESTORE_MESSAGES}) do
    local message = redis.call('HGET', held, tags[i])
    local sha = message and redis.sha1hex(message)
    if message and redis.call('HGET', DELIVERIES, sha) == DONE then
      redis.call('HDEL', held, tags[i])
      forget_counts(message)
    elseif message then
      local list = string.sub(tags[i], string.find(tags[i], ':', 1, true) + 1)
      redis.call(behind and 'LPUSH' or 'RPUSH', {_LIST}list, message)
      redis.call('HDEL', held, tags[i])
      redis.call('HINCRBY', DELIVERIES, sha, redelivered and 1 or 0)
      if lapse then
        local line = lapse.running[tags[i]] and lapse.line or ''
        if line ~= '' then note_death(sha, line) end
        redis.call('HSET', lapse.key, tags[i], sha .. line)
      end
      queues[queue_of(list)] = true
      bytes = bytes + #message
    end
    moved = i
    if bytes > {RESTORE_BYTES} then break end
  end
  if moved > 0 then redis.call('EXPIRE', DELIVERIES, {DELIVERIES_TTL_S}) end
  if lapse then redis.call('EXPIRE', lapse.key, {RETURNED_TTL_S}) end
  for queue in pairs(queues) do ring(queue) end
  return moved
end
"""

#: ARGV: consumer, '1' if these messages may have been served already and count as delivered again, '1' to put them
#: behind all that wait rather than at the head, then tags in the order in which they are put back: at the head the last
#: claimed first. Gives how many of these tags are settled; call again with the rest.
RELEASE: Final = (
    _SHARED
    + _PUT_BACK
    + """
redis.call('ZREM', LEASES, '')
local tags = {}
for i = 4, #ARGV do tags[#tags + 1] = ARGV[i] end
return put_back(IN_FLIGHT .. ARGV[1], tags, ARGV[2] == '1', ARGV[3] == '1')
"""
)

#: ARGV: consumer, '1' to do it only if its lease has ended, and to count a delivery, and a death of what it ran, and to
#: note what it held in case it lives. Gives how many messages it put back; call again until that is 0.
RELEASE_ALL: Final = (
    _SHARED
    + _PUT_BACK
    + """
local consumer, dead = ARGV[1], ARGV[2] == '1'
redis.call('ZREM', LEASES, '')
local lease_end = redis.call('ZSCORE', LEASES, consumer)
if dead and (not lease_end or tonumber(lease_end) > now_ms()) then return 0 end
local held, lapse = IN_FLIGHT .. consumer, dead and {running = {}, line = '', key = RETURNED .. consumer}
local mark = dead and redis.call('GET', RUNNING .. consumer)
if mark then
  local worker, tags = string.match(mark, '^([^\\n]*)(.*)$')
  for tag in string.gmatch(tags, '[^\\n]+') do lapse.running[tag] = true end
  lapse.line = string.format('%d %s', now_ms(), worker)
end
local moved = put_back(held, redis.call('HKEYS', held), dead, false, lapse)
if redis.call('EXISTS', held) == 0 then
  redis.call('ZREM', LEASES, consumer)
  redis.call('DEL', RUNNING .. consumer)
end
return moved
"""
)

#: ARGV: consumer, lease in ms. Gives how many messages the consumer holds, and 1 if its lease had ended meanwhile and
#: messages were taken from it (`COME_BACK`).
RENEW: Final = (
    _SHARED
    + """
redis.call('ZREM', LEASES, '')
local held = redis.call('HLEN', IN_FLIGHT .. ARGV[1])
if held > 0 then redis.call('ZADD', LEASES, now_ms() + tonumber(ARGV[2]), ARGV[1]) end
return {held, redis.call('EXISTS', RETURNED .. ARGV[1])}
"""
)

#: ARGV: consumer, which lives though its lease had ended. Takes back the deaths that were noted of it, and gives a flat
#: list of [tag, SHA-1 of the message] of what was taken from it.
COME_BACK: Final = (
    _SHARED
    + """
local function withdraw(sha, line)
  local lines = '\\n' .. (redis.call('HGET', DEATHS, sha) or '')
  local from, to = string.find(lines, '\\n' .. line .. '\\n', 1, true)
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
"""
)

#: ARGV: consumer, then the tag and the SHA-1 of each message that is done and is remembered: it came back before, or
#: was taken from the consumer as its lease ended. What it doesn't hold any more, and nobody else has finished, is not
#: run again.
ACK_REMEMBERED: Final = (
    _SHARED
    + """
redis.call('ZREM', LEASES, '')
for at = 2, #ARGV, 2 do
  local sha = ARGV[at + 1]
  if redis.call('HDEL', IN_FLIGHT .. ARGV[1], ARGV[at]) == 1 then
    forget_counts_of(sha)
  elseif redis.call('HEXISTS', DELIVERIES, sha) == 1 then
    redis.call('HSET', DELIVERIES, sha, DONE)
  end
end
"""
)

#: ARGV: consumer, tag, dead-letter id, JSON of what happened. Gives 1, or 0 when the consumer holds no such message.
DEAD_LETTER: Final = (
    _SHARED
    + f"""
local held, tag, id = IN_FLIGHT .. ARGV[1], ARGV[2], ARGV[3]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', held, tag)
if not message then return 0 end
local queue = queue_of(string.sub(tag, string.find(tag, ':', 1, true) + 1))
redis.call('HSET', '{KEYS.dead_messages}', id, message)
redis.call('HSET', '{KEYS.dead_letters}', id, ARGV[4])
redis.call('HINCRBY', '{KEYS.dead_counts}', queue, 1)
local now = redis.call('TIME')[1]
redis.call('ZADD', '{KEYS.dead_index}', now, id)
redis.call('ZADD', '{KEYS.dead_queue("")}' .. queue, now, id)
redis.call('HDEL', held, tag)
forget_counts(message)
return 1
"""
)

#: ARGV: dead-letter id, '1' to put the message back on its queue as if it had never been delivered. Gives 1, or 0 when
#: there is no such letter.
TAKE_LETTER: Final = (
    _SHARED
    + f"""
local id = ARGV[1]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', '{KEYS.dead_messages}', id)
local letter = redis.call('HGET', '{KEYS.dead_letters}', id)
if not message or not letter then return 0 end
letter = cjson.decode(letter)
forget_counts(message)
if ARGV[2] == '1' then
  local list = letter.list_key
  if not list or list == '' then list = list_of(letter.queue, letter.step) end
  redis.call('LPUSH', {_LIST}list, message)
  ring(letter.queue)
end
redis.call('HDEL', '{KEYS.dead_messages}', id)
redis.call('HDEL', '{KEYS.dead_letters}', id)
redis.call('ZREM', '{KEYS.dead_index}', id)
redis.call('ZREM', '{KEYS.dead_queue("")}' .. letter.queue, id)
if redis.call('HINCRBY', '{KEYS.dead_counts}', letter.queue, -1) <= 0 then
  redis.call('HDEL', '{KEYS.dead_counts}', letter.queue)
end
return 1
"""
)

#: ARGV: consumer, tag, milliseconds, '1' to count a retry. Takes a message from what the consumer holds and keeps it
#: for that long before a claim puts it back at the head of its queue. Gives 1, or 0 when the consumer holds no such
#: message.
DEFER: Final = (
    _SHARED
    + f"""
local held, tag = IN_FLIGHT .. ARGV[1], ARGV[2]
redis.call('ZREM', LEASES, '')
local message = redis.call('HGET', held, tag)
if not message then return 0 end
local name = ARGV[1] .. ':' .. tag
redis.call('HSET', DELAYED_MESSAGES, name, message)
redis.call('ZADD', DELAYED, now_ms() + tonumber(ARGV[3]), name)
redis.call('HDEL', held, tag)
if ARGV[4] == '1' then
  redis.call('HINCRBY', RETRIES, redis.sha1hex(message), 1)
  redis.call('EXPIRE', RETRIES, {DELIVERIES_TTL_S})
end
return 1
"""
)

#: ARGV: queues. Gives for each of them its lengths (the most urgent step first), the ends of the oldest message of each
#: list, the number of its dead letters and the time of the oldest in seconds ('' for none); and last flat lists of
#: [queue, messages in flight] and [queue, messages delayed].
STATS: Final = (
    _SHARED
    + f"""
local answer, in_flight, delayed = {{}}, {{}}, {{}}

local function flattened(counts)
  local flat = {{}}
  for queue, count in pairs(counts) do
    flat[#flat + 1] = queue
    flat[#flat + 1] = count
  end
  return flat
end

for _, queue in ipairs(ARGV) do
  local lengths, tails = {{}}, {{}}
  for _, step in ipairs(steps_of(queue)) do
    local list = list_of(queue, step)
    lengths[#lengths + 1] = redis.call('LLEN', {_LIST}list)
    tails[#tails + 1] = string.sub(redis.call('LINDEX', {_LIST}list, -1) or '', -{TAIL_BYTES})
  end
  local oldest = redis.call('ZRANGE', '{KEYS.dead_queue("")}' .. queue, 0, 0, 'WITHSCORES')[2] or ''
  local dead = tonumber(redis.call('HGET', '{KEYS.dead_counts}', queue) or 0)
  answer[#answer + 1] = {{lengths, tails, dead, oldest}}
end
for _, consumer in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  for _, tag in ipairs(redis.call('HKEYS', IN_FLIGHT .. consumer)) do
    local queue = queue_of(string.sub(tag, string.find(tag, ':', 1, true) + 1))
    in_flight[queue] = (in_flight[queue] or 0) + 1
  end
end
for _, name in ipairs(redis.call('ZRANGE', DELAYED, 0, -1)) do
  local queue = queue_of(string.match(name, '^[^:]*:%d+:(.*)$'))
  delayed[queue] = (delayed[queue] or 0) + 1
end
answer[#answer + 1] = flattened(in_flight)
answer[#answer + 1] = flattened(delayed)
return answer
"""
)


def rendered(text: str, keys: Keys) -> str:
    """Return the text of a script for one key space and the lists of its users."""
    marks = {
        _LIST: f"'{keys.prefix}' .. " if keys.prefix else "",
        "<SEPARATOR>": _quoted(keys.lists.separator),
        "<STEPS>": ", ".join(map(str, keys.lists.in_order)),
        _PREFIX: keys.prefix,
    }
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def _quoted(text: str) -> str:
    """Write any text as a Lua string."""
    return "'" + "".join(f"\\{byte:03d}" for byte in text.encode()) + "'"


def script(client: Redis, text: str) -> Script:
    """Return a script bound to a client and its key space; the server learns it when it is first called."""
    return client.register_script(rendered(text, keys_of(client)))
