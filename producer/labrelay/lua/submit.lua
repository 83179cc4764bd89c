-- Accept exports, each with row, state index, due time and trail in one step, so that nothing accepted can be half there.
-- ARGV: prefix replace grace_ms rings (id digest context strategy destinations session instrument priority traceparent)*
-- `rings`: 1 at the last call of several, which counts the wake-ups for all of them.
-- Answers {wake-ups to publish, {outcome, state, revision, what differs}*}.
local replace, grace, rings = ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4] == '1'
local now = now_ms()

-- Everything that lies in one key is asked for, and written, once for all exports: commands are what costs.
local archived, sessions = {}, {}
if #ARGV > 4 then
  local ids, named = {}, {}
  for i = 5, #ARGV, 9 do ids[#ids + 1], named[#named + 1] = ARGV[i], ARGV[i + 5] end
  for i, found in ipairs(redis.call('HMGET', prefix .. 'archived', unpack(ids))) do archived[ids[i]] = found end
  for i, found in ipairs(redis.call('HMGET', prefix .. 'sessions', unpack(named))) do sessions[named[i]] = found end
end

-- What new exports add to the indexes, still to be written: score or session, and id, in turns.
local queued, due, of_sessions, ready, last = {}, {}, {}, {}, 0
local now_text, due_text = text(now), text(now + grace)
local line_of_trail = now_text .. ' {"event":"accepted","detail":"revision 1"}'
local accepted = {'accepted', 'queued', 1, ''}

local function write_indexes()
  if last == 0 then return end
  redis.call('ZADD', prefix .. 'state:queued', unpack(queued))
  redis.call('ZADD', prefix .. 'due', unpack(due))
  redis.call('HSET', prefix .. 'sessions', unpack(of_sessions))
  -- NX as in `make_ready`.
  for priority, exports in pairs(ready) do redis.call('ZADD', ready_key(priority), 'NX', unpack(exports)) end
  queued, due, of_sessions, ready, last = {}, {}, {}, {}, 0
end

local function accept(id, digest, context, strategy, destinations, session, instrument, priority, traceparent)
  local key = row_key(id)
  redis.call('HSET', key, 'digest', digest, 'context', context, 'strategy', strategy, 'destinations', destinations,
    'session', session, 'instrument', instrument, 'revision', 1, 'created', now_text, 'not_before', 0,
    'priority', priority, 'state', 'queued', 'updated', now_text, 'token', 0, 'runs', 0)
  if traceparent ~= '' then redis.call('HSET', key, 'traceparent', traceparent) end
  redis.call('RPUSH', prefix .. 'trail:' .. id, line_of_trail)
  local known = sessions[session]
  sessions[session] = known and (known .. ' ' .. id) or id
  local same = ready[priority] or {}
  ready[priority] = same
  same[#same + 1], same[#same + 2] = now_text, id
  queued[last + 1], queued[last + 2] = now_text, id
  due[last + 1], due[last + 2] = due_text, id
  of_sessions[last + 1], of_sessions[last + 2] = session, sessions[session]
  last = last + 2
  return accepted
end

-- Submitted again with a higher priority, it moves ahead; with a lower one it stays where it is.
local function hasten(id, from, to)
  for _, higher in ipairs(priorities) do
    if higher == from then return end
    if higher == to then break end
  end
  redis.call('HSET', row_key(id), 'priority', to)
  local since = redis.call('ZSCORE', ready_key(from), id)
  if since then
    unmake_ready(id, from)
    make_ready(id, to, since)
  end
end

local function submit(id, digest, context, strategy, destinations, session, instrument, priority, traceparent)
  local key, old = row_key(id), {}
  if redis.call('HGET', key, 'state') then
    old = redis.call('HMGET', key, 'state', 'digest', 'strategy', 'destinations', 'revision', 'lease_until',
      'not_before', 'priority')
  end
  local tombstone = not old[1] and archived[id]
  if tombstone then
    tombstone = cjson.decode(tombstone)
    old = {tombstone.state, tombstone.digest, tombstone.strategy, tombstone.destinations, tombstone.revision, nil,
      tombstone.not_before}
  end
  local state, revision = old[1], tonumber(old[5] or '0')
  if not state then
    return accept(id, digest, context, strategy, destinations, session, instrument, priority, traceparent)
  end
  write_indexes() -- what comes looks into them, and this very call may have submitted the export before

  local differs = {}
  if old[2] ~= digest then differs[#differs + 1] = 'content' end
  if old[3] ~= strategy then differs[#differs + 1] = 'strategy' end
  if old[4] ~= destinations then differs[#differs + 1] = 'destinations' end
  local ended = state == 'dead' or state == 'cancelled' or state == 'unknown'
  if #differs == 0 and not (replace and ended) then
    if state == 'queued' or state == 'waiting' then hasten(id, old[8] or 'normal', priority) end
    return {'duplicate', state, revision, ''}
  end
  if not replace then return {'conflict', state, revision, table.concat(differs, ', ')} end

  if tombstone then
    -- The next revision of an archived export needs its receipts (to update in place), its open intents (to ask) and
    -- its token (a worker frozen since then must stay fenced off).
    for field, value in pairs(tombstone) do redis.call('HSET', key, field, value) end
    redis.call('HDEL', key, 'archive_file', 'archive_host', 'archive_at', 'archive_why')
    redis.call('HDEL', prefix .. 'archived', id)
  end

  revision = revision + 1
  local not_before = 0
  -- A worker may still be sending the old revision: its token is void at once, and the new one starts when its
  -- lease would have ended. Its open intents stay, so that doubtful sends are asked about, not repeated.
  -- A revision that was itself waiting for that is followed by one that waits as long, a cancel between them or not.
  if state == 'running' then not_before = tonumber(old[6] or '0') end
  if state == 'queued' or state == 'cancelled' then not_before = tonumber(old[7] or '0') end
  local packed = tombstone and tombstone.packed or redis.call('GET', packed_key(id))
  if packed then
    redis.call('HSET', key, 'earlier', packed)
    redis.call('HDEL', key, 'packed')
    redis.call('DEL', packed_key(id))
  end
  redis.call('HINCRBY', key, 'token', 1)
  unmake_ready(id, old[8] or 'normal')
  redis.call('HDEL', key, 'lease_owner', 'lease_until', 'cancel', 'summary', 'crashes', 'cause')
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local kind = string.sub(field, 1, 2)
    if kind == 'r:' then
      redis.call('HSET', key, 'p:' .. string.sub(field, 3), redis.call('HGET', key, field))
      redis.call('HDEL', key, field)
    elseif kind == 'd:' then
      redis.call('HDEL', key, field)
    end
  end
  redis.call('HSET', key, 'digest', digest, 'context', context, 'strategy', strategy, 'destinations', destinations,
    'session', session, 'instrument', instrument, 'revision', revision, 'created', text(now),
    'not_before', text(not_before), 'priority', priority, 'state', 'queued', 'updated', text(now))
  if traceparent ~= '' then
    redis.call('HSET', key, 'traceparent', traceparent)
  else
    redis.call('HDEL', key, 'traceparent')
  end
  move_index(id, state, 'queued', now)
  set_due(id, math.max(now + grace, not_before))
  if not_before <= now then make_ready(id, priority, now) end
  note(id, now, cjson.encode({event = 'replaced', detail = 'revision ' .. revision}))
  return {'replaced', 'queued', revision, ''}
end

local answers = {0}
for i = 5, #ARGV, 9 do answers[#answers + 1] = submit(unpack(ARGV, i, i + 8)) end
write_indexes()
if rings then answers[1] = to_ring() end
return answers
