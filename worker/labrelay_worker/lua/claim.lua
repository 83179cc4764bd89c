-- Claim one export. ARGV: prefix id owner lease_ms poison_limit
-- Answers {'claimed', now, row as a flat list}, or {why not}: 'missing', 'finished', 'leased', 'later', 'suspect'
-- (its turn comes), 'poisoned' (parked for a person).
local id, owner, lease, poison_limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
-- So many deaths in a row make a suspect. Suspects run one at a time: a process that dies takes innocent exports
-- with it, and only what dies alone again and again is the cause.
local suspicious = 2
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'lease_until', 'not_before', 'cancel', 'crashes')
local state = row[1]
if not state then
  unset_due(id)
  return {'missing'}
end
if state ~= 'queued' and state ~= 'waiting' and state ~= 'running' then
  unset_due(id)
  return {'finished'}
end
if state == 'running' and tonumber(row[2] or '0') > now then return {'leased'} end
if tonumber(row[3] or '0') > now then return {'later'} end
if row[4] == '1' then
  redis.call('HDEL', key, 'cancel', 'lease_owner', 'lease_until')
  move_state(id, state, 'cancelled', now)
  unset_due(id)
  note(id, now, cjson.encode({event = 'cancelled'}))
  return {'finished'}
end

local crashes = tonumber(row[5] or '0') + (state == 'running' and 1 or 0)
if state == 'running' and crashes >= poison_limit then
  local summary = 'killed its worker ' .. crashes .. ' times; look at the workers\' logs, repair the cause, then replay'
  redis.call('HINCRBY', key, 'token', 1)
  redis.call('HDEL', key, 'lease_owner', 'lease_until')
  redis.call('HSET', key, 'crashes', crashes, 'summary', summary, 'cause', 'poison')
  move_state(id, state, 'dead', now)
  unset_due(id)
  note(id, now, cjson.encode({event = 'dead', worker = owner, detail = summary}))
  return {'poisoned'}
end
if crashes >= suspicious then
  local other = redis.call('GET', prefix .. 'suspect')
  if other and other ~= id then
    local its = redis.call('HMGET', row_key(other), 'state', 'lease_until', 'crashes')
    if its[1] == 'running' and tonumber(its[2] or '0') > now and tonumber(its[3] or '0') >= suspicious then
      set_due(id, now + 2000)
      return {'suspect'}
    end
  end
  redis.call('SET', prefix .. 'suspect', id)
end

local detail = state == 'running' and 'after the lease of another worker ended' or ''
redis.call('HINCRBY', key, 'token', 1)
redis.call('HINCRBY', key, 'runs', 1)
redis.call('HSET', key, 'lease_owner', owner, 'lease_until', text(now + lease))
if state == 'running' then redis.call('HSET', key, 'crashes', crashes) end
move_state(id, state, 'running', now)
set_due(id, now + lease)
note(id, now, cjson.encode({event = 'claimed', worker = owner, detail = detail}))
return {'claimed', text(now), redis.call('HGETALL', key)}
