-- Make exports due that waited for a destination which takes deliveries again, the longest waiting first.
-- ARGV: prefix destination limit spacing_ms
-- They become due one after the other, `spacing` apart: a destination that just came back meets no herd.
-- Answers how many left the waiting set.
local name, limit, spacing = ARGV[2], ARGV[3], tonumber(ARGV[4])
local now, due = now_ms(), 0
local popped = redis.call('ZPOPMIN', prefix .. 'held:' .. name, limit)
for i = 1, #popped, 2 do
  local id = popped[i]
  local key = row_key(id)
  -- Not waiting: it was woken otherwise, or finished. A worker that holds it sees for itself.
  if redis.call('HGET', key, 'state') == 'waiting' then
    local at = now + due * spacing
    local delivery = redis.call('HGET', key, 'd:' .. name)
    if delivery then
      -- The back-off of the failures that closed the destination is over with it.
      local stands = cjson.decode(delivery)
      if stands.retry_at and (stands.error_kind == 'unavailable' or stands.error_kind == 'misconfigured') then
        stands.retry_at = nil
        redis.call('HSET', key, 'd:' .. name, cjson.encode(stands))
      end
    end
    redis.call('HSET', key, 'not_before', text(at))
    set_due(id, at)
    note(id, now, cjson.encode({event = 'released', destination = name}))
    due = due + 1
  end
end
return #popped / 2
