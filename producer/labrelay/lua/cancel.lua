-- Cancel one export. ARGV: prefix id
-- Answers 'cancelled', 'cancelling' (a worker is sending and stops after it), the final state, or 'missing'.
local id = ARGV[2]
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'lease_until')
local state = row[1]
if not state then return 'missing' end
if state ~= 'queued' and state ~= 'waiting' and state ~= 'running' then return state end
if state == 'running' and tonumber(row[2] or '0') > now then
  redis.call('HSET', key, 'cancel', '1')
  note(id, now, cjson.encode({event = 'cancel requested'}))
  return 'cancelling'
end
redis.call('HINCRBY', key, 'token', 1)
redis.call('HDEL', key, 'lease_owner', 'lease_until', 'cancel')
-- That of a queued one stays for whoever starts it again: a worker may still be sending the revision before.
if state ~= 'queued' then redis.call('HSET', key, 'not_before', 0) end
move_state(id, state, 'cancelled', now)
unset_due(id)
unmake_ready(id, priority_of(id))
note(id, now, cjson.encode({event = 'cancelled'}))
return 'cancelled'
