-- Claim exports: first those that are named, then those that are ready, the urgent ones before all.
-- ARGV: prefix owner lease_ms poison_limit free reserve left call again id*
-- `again`: 1 where this call was made before and its answer may have been lost: what it claimed then comes first, for
-- nobody works on it, and no worker died with it.
-- `free`: how many are taken of those that are ready; `reserve`: how many urgent ones more. `left`: how many this
-- wake-up is still good for; 0: it only names exports, as those of older releases do; -1: nobody was woken.
-- Answers {wake-up used up 1/0, wake-ups to publish, now, answer*}; an answer is {id, 'claimed', row as a flat list} or
-- {id, why not}: 'missing', 'finished', 'leased', 'later', 'suspect' (its turn comes), 'poisoned' (parked for a person).
local owner, lease, poison_limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- So many deaths in a row make a suspect: a process that dies takes innocent exports with it, and only what dies alone
-- again and again is the cause. Suspects run a handful at a time. Each one that survives lets one more run beside the
-- others, so handfuls double; a death leaves one place, and who died in a handful runs alone from then on.
local suspicious = 2
local holder = owner .. ' ' .. ARGV[8]
local now = now_ms()

local function runs_alone(crashes) return crashes > suspicious or crashes >= poison_limit - 1 end

-- Whether a suspect may run now.
local function admit(id, crashes)
  local handful, size = prefix .. 'suspects', tonumber(redis.call('GET', prefix .. 'handful') or '')
  local running, survived, alone = 0, 0, runs_alone(crashes)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', handful, '-inf', '+inf')) do
    local its = redis.call('HMGET', row_key(other), 'state', 'lease_until', 'crashes')
    local runs, deaths = its[1] == 'running', tonumber(its[3] or '0')
    if runs and deaths >= suspicious and tonumber(its[2] or '0') > now then
      running = running + 1
      alone = alone or runs_alone(deaths)
    else
      redis.call('ZREM', handful, other)
      if runs and tonumber(its[2] or '0') <= now then size = nil else survived = survived + 1 end
    end
  end
  size = size and size + survived or 1
  -- The next disaster begins with one again.
  redis.call('SET', prefix .. 'handful', text(size), 'PX', text(2 * lease))
  if running >= (alone and 1 or size) then return false end
  redis.call('ZADD', handful, text(now), id)
  return true
end

local function claim(id)
  local key = row_key(id)
  local row = redis.call('HMGET', key, 'state', 'lease_until', 'not_before', 'cancel', 'crashes', 'priority',
    'token', 'runs')
  local state = row[1]
  unmake_ready(id, row[6] or 'normal')
  if not state then
    unset_due(id)
    return {id, 'missing'}
  end
  if state ~= 'queued' and state ~= 'waiting' and state ~= 'running' then
    unset_due(id)
    return {id, 'finished'}
  end
  if state == 'running' and tonumber(row[2] or '0') > now then return {id, 'leased'} end
  if tonumber(row[3] or '0') > now then return {id, 'later'} end
  if row[4] == '1' then
    redis.call('HDEL', key, 'cancel', 'lease_owner', 'lease_until')
    move_state(id, state, 'cancelled', now)
    unset_due(id)
    note(id, now, cjson.encode({event = 'cancelled'}))
    return {id, 'finished'}
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
    return {id, 'poisoned'}
  end
  if crashes >= suspicious and not admit(id, crashes) then
    set_due(id, now + 1000)
    return {id, 'suspect'}
  end

  local detail = state == 'running' and 'after the lease of another worker ended' or ''
  redis.call('HSET', key, 'token', text((row[7] or 0) + 1), 'runs', text((row[8] or 0) + 1), 'lease_owner', holder,
    'lease_until', text(now + lease), 'state', 'running', 'updated', text(now),
    unpack(state == 'running' and {'crashes', crashes} or {}))
  move_index(id, state, 'running', now)
  set_due(id, now + lease)
  note(id, now, cjson.encode({event = 'claimed', worker = owner, detail = detail}))
  return {id, 'claimed', redis.call('HGETALL', key)}
end

local function claim_again()
  local found = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'state:running', '-inf', '+inf')) do
    local key = row_key(id)
    if redis.call('HGET', key, 'lease_owner') == holder then
      redis.call('HSET', key, 'lease_until', text(now + lease))
      set_due(id, now + lease)
      unmake_ready(id, priority_of(id))
      found[#found + 1], found[id] = id, {id, 'claimed', redis.call('HGETALL', key)}
    end
  end
  return found
end

local free, reserve, left = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local answers = {0, 0, text(now)}
local known = ARGV[9] == '1' and claim_again() or {}
for _, id in ipairs(known) do answers[#answers + 1] = known[id] end
for i = 10, #ARGV do
  if not known[ARGV[i]] then answers[#answers + 1] = claim(ARGV[i]) end
end
if left == 0 then return answers end
local counted = left > 0
if not counted then left = exports_per_wake_up end

-- Those of an earlier call have the places that this one asks for.
if #known > 0 then free, reserve = 0, 0 end
free = math.min(free, left)
reserve = math.min(reserve, left - free)
local taken = #answers - 3
for _, priority in ipairs(priorities) do
  local places = priority == 'urgent' and free + reserve or free
  if places > 0 then
    local popped = redis.call('ZPOPMIN', ready_key(priority), places)
    for i = 1, #popped, 2 do answers[#answers + 1] = claim(popped[i]) end
    free, taken = free - #popped / 2, taken + #popped / 2
  end
end
if counted and (taken == 0 or taken >= left) then
  answers[1] = 1
  if tonumber(redis.call('GET', prefix .. 'rung') or '0') > 0 then redis.call('DECR', prefix .. 'rung') end
  answers[2] = to_ring()
end
return answers
