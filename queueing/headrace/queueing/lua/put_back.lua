-- Included in scripts that put messages back.

local function note_death(sha, line)
  local lines = (redis.call('HGET', DEATHS, sha) or '') .. line .. '\n'
  local _, count = string.gsub(lines, '\n', '')
  if count > CRASHES_KEPT then lines = string.sub(lines, string.find(lines, '\n', 1, true) + 1) end
  redis.call('HSET', DEATHS, sha, lines)
  redis.call('EXPIRE', DEATHS, DELIVERIES_TTL_S)
end

-- Puts messages back at the head of their lists: the last claimed first, so that the first claimed is the next out.
-- Stops early when it moved many bytes; returns how many it moved. redelivered: count a delivery; without, it is only
-- noted that they came back. behind: put them behind all that wait in their lists. lapse: that of the consumer's lease,
-- with the set of tags that were running, the line to note of the crash, and the key of what it held.
local function put_back(held, tags, redelivered, behind, lapse)
  local seq = {}
  for _, tag in ipairs(tags) do seq[tag] = tonumber(string.match(tag, '^%d+')) end
  table.sort(tags, function(a, b) return (seq[a] > seq[b]) ~= behind and seq[a] ~= seq[b] end)
  local bytes, moved, queues = 0, 0, {}
  for i = 1, math.min(#tags, RESTORE_MESSAGES) do
    local message = redis.call('HGET', held, tags[i])
    local sha = message and redis.sha1hex(message)
    if message and redis.call('HGET', DELIVERIES, sha) == DONE then
      redis.call('HDEL', held, tags[i])
      forget_counts(message)
    elseif message then
      local list = string.sub(tags[i], string.find(tags[i], ':', 1, true) + 1)
      redis.call(behind and 'LPUSH' or 'RPUSH', PREFIX .. list, message)
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
    if bytes > RESTORE_BYTES then break end
  end
  if moved > 0 then redis.call('EXPIRE', DELIVERIES, DELIVERIES_TTL_S) end
  if lapse then redis.call('EXPIRE', lapse.key, RETURNED_TTL_S) end
  for queue in pairs(queues) do ring(queue) end
  return moved
end
