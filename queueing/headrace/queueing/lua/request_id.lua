-- Included in searches: `id_of` returns the id in a message, as JSON writes it. The properties come last, so the last
-- `correlation_id` is theirs.

local function id_in(tail)
  local from, at = 1, nil
  while true do
    local _, stop = string.find(tail, '"correlation_id":', from, true)
    if not stop then break end
    from, at = stop + 1, stop + 1
  end
  if not at then return nil end
  local stop = string.find(tail, ',%s*"reply_to"', at)
  if stop then return (string.match(string.sub(tail, at, stop - 1), '^%s*(.-)%s*$')) end
  return string.match(tail, '^%s*("[^"]*")', at)
end
local function id_of(message)
  return id_in(string.sub(message, -ID_SHORT_TAIL_BYTES)) or id_in(string.sub(message, -ID_TAIL_BYTES))
end
