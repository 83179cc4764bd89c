-- Claim exports: first those that are named, then those that are ready, the urgent ones before all.
-- ARGV: prefix owner lease_ms poison_limit free reserve left id*
-- `free`: how many are taken of those that are ready; `reserve`: how many urgent ones more. `left`: how many this
-- wake-up is still good for; 0: it only names exports, as those of older releases do; -1: nobody was woken.
-- Answers {wake-up used up 1/0, wake-ups to publish, now, answer*}; an answer is {id, 'claimed', row as a flat list} or
-- {id, why not}: 'missing', 'finished', 'leased', 'later', 'suspect' (its turn comes), 'poisoned' (parked for a person).
local owner, lease, poison_limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- So many deaths in a row make a suspect. Suspects run one at a time: a process that dies takes innocent exports
-- with it, and only what dies alone again and again is the cause.
local suspicious = 2
local now = now_ms()

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
  if crashes >= suspicious then
    local other = redis.call('GET', prefix .. 'suspect')
    if other and other ~= id then
      local its = redis.call('HMGET', row_key(other), 'state', 'lease_until', 'crashes')
      if its[1] == 'running' and tonumber(its[2] or '0') > now and tonumber(its[3] or '0') >= suspicious then
        set_due(id, now + 2000)
        return {id, 'suspect'}
      end
    end
    redis.call('SET', prefix .. 'suspect', id)
  end

  local detail = state == 'running' and 'after the lease of another worker ended' or ''
  redis.call('HSET', key, 'token', text((row[7] or 0) + 1), 'runs', text((row[8] or 0) + 1), 'lease_owner', owner,
    'lease_until', text(now + lease), 'state', 'running', 'updated', text(now),
    unpack(state == 'running' and {'crashes', crashes} or {}))
  move_index(id, state, 'running', now)
  set_due(id, now + lease)
  note(id, now, cjson.encode({event = 'claimed', worker = owner, detail = detail}))
  return {id, 'claimed', redis.call('HGETALL', key)}
end

local free, reserve, left = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local answers = {0, 0, text(now)}
for i = 8, #ARGV do answers[#answers + 1] = claim(ARGV[i]) end
if left == 0 then return answers end
local counted = left > 0
if not counted then left = exports_per_wake_up end

free = math.min(free, left)
reserve = math.min(reserve, left - free)
local taken = #ARGV - 7
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
