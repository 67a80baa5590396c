-- Included in scripts on queues: the names of keys and lists, and functions on them. Words in capitals that no script
-- defines are parameters: see scripts.py.

local SEP, OTHER_SEP, BELL, IN_FLIGHT = '\006\022', SEPARATOR, KEY_DOORBELL, KEY_IN_FLIGHT
local LEASES, DELIVERIES = KEY_LEASES, KEY_DELIVERIES
local DEATHS, RETRIES, RUNNING = KEY_DEATHS, KEY_RETRIES, KEY_RUNNING
local RETURNED = KEY_RETURNED
local DELAYED, DELAYED_MESSAGES = KEY_DELAYED, KEY_DELAYED_MESSAGES
local MODEL_STEPS, OTHER_STEPS = {STEPS_OF_MODELS}, {STEPS_OF_OTHERS}

local function is_model(queue)
  return string.sub(queue, 1, TASK_PREFIX_LENGTH) == TASK_PREFIX
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
  for _, counts in ipairs({DELIVERIES, DEATHS, RETRIES}) do redis.call('HDEL', counts, sha) end
end

local function forget_counts(message)
  forget_counts_of(redis.sha1hex(message))
end

-- The value in DELIVERIES, in place of a count, of a message that was acknowledged after its lease had ended: it is not
-- to be run again.
local DONE = 'done'

local function ring(queue)
  if redis.call('EXISTS', BELL .. queue) == 0 then
    redis.call('LPUSH', BELL .. queue, '1')
    redis.call('EXPIRE', BELL .. queue, BELL_TTL_S)
  end
end
