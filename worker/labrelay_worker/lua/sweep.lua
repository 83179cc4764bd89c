-- The reconciler's sweep. ARGV: prefix leader leader_ttl_ms grace_ms limit
-- One leader at a time; it makes ready what is due, and pushes the due time on (so that the next sweep looks at others).
-- When exports have been ready for some seconds, their wake-ups are lost or all workers are busy, and nobody can tell the
-- two apart: only those in Celery's queue are counted then, so that a lost one is replaced, at the price of a few that
-- find nothing to do.
-- Answers {how many were due, wake-ups to publish, (id session instrument strategy)*} with the first few exports, for
-- people. False: somebody else leads.
local me, ttl, grace, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local shown, patience = 6, 2000
local leader = redis.call('GET', prefix .. 'leader')
if leader and leader ~= me then return false end
redis.call('SET', prefix .. 'leader', me, 'PX', ttl)
local now, found, told = now_ms(), 0, {}
local kept_waiting = 0
for _, priority in ipairs(priorities) do
  kept_waiting = kept_waiting + redis.call('ZCOUNT', ready_key(priority), '-inf', text(now - patience))
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', text(now), 'LIMIT', 0, limit)) do
  local row = redis.call('HMGET', row_key(id), 'session', 'instrument', 'strategy', 'priority')
  if row[1] then
    set_due(id, now + grace)
    make_ready(id, row[4] or 'normal', now)
    found = found + 1
    if found <= shown then
      for _, part in ipairs({id, row[1], row[2], row[3]}) do told[#told + 1] = part end
    end
  else
    unset_due(id)
  end
end
if kept_waiting > 0 then redis.call('SET', prefix .. 'rung', redis.call('LLEN', prefix .. wake_up_queue)) end
return {found, to_ring(), unpack(told)}
