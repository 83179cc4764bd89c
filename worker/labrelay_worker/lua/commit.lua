-- Write steps of one claimed export, all or none. ARGV: prefix id token (step name value)*
-- Steps: intent, receipt, previous (an earlier revision arrived), delivery, close, hold, note, settle. Answers 'ok',
-- 'cancel' (written, and a cancel was asked for), 'lost' (the fencing token is void: nothing written), or 'confirmed' (an
-- intent for a receipt that exists). A receipt or a settle shows that the export does not kill its worker: the count
-- of deaths begins anew.
local id, token = ARGV[2], ARGV[3]
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'token', 'state', 'cancel')
if row[1] ~= token or row[2] ~= 'running' then return 'lost' end
for i = 4, #ARGV, 3 do
  if ARGV[i] == 'intent' and redis.call('HEXISTS', key, 'r:' .. ARGV[i + 1]) == 1 then return 'confirmed' end
end
redis.call('HSET', key, 'updated', text(now))
for i = 4, #ARGV, 3 do
  local step, name, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if step == 'intent' then
    redis.call('HSET', key, 'i:' .. name, value)
  elseif step == 'receipt' then
    redis.call('HSET', key, 'r:' .. name, value)
    redis.call('HDEL', key, 'i:' .. name, 'crashes')
  elseif step == 'previous' then
    redis.call('HSET', key, 'p:' .. name, value)
    redis.call('HDEL', key, 'i:' .. name)
  elseif step == 'delivery' then
    redis.call('HSET', key, 'd:' .. name, value)
  elseif step == 'close' then
    redis.call('HDEL', key, 'i:' .. name)
  elseif step == 'hold' then
    redis.call('ZADD', prefix .. 'held:' .. name, text(now), id)
  elseif step == 'note' then
    note(id, now, value)
  elseif step == 'settle' then
    -- name: the state; value: "<not_before in ms, 0 if final> <summary>"
    local at, summary = string.match(value, '^(%d+) (.*)$')
    if row[3] == '1' and (name == 'queued' or name == 'waiting') then
      -- The cancel came after the worker's last look; 'cancelling' was answered, so it holds.
      name = 'cancelled'
      note(id, now, cjson.encode({event = 'cancelled'}))
    end
    redis.call('HDEL', key, 'lease_owner', 'lease_until', 'cancel', 'crashes')
    redis.call('HSET', key, 'summary', summary, 'not_before', at)
    move_state(id, row[2], name, now)
    if name == 'queued' or name == 'waiting' then set_due(id, math.max(tonumber(at), now)) else unset_due(id) end
  end
end
return row[3] == '1' and 'cancel' or 'ok'
