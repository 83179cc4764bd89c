-- The reconciler's sweep. ARGV: prefix leader leader_ttl_ms grace_ms limit
-- One leader at a time; it takes what is due, pushes the due time on (so that no second sweep publishes the same
-- at once) and answers a flat list: id session instrument strategy, per export. False: somebody else leads.
local me, ttl, grace, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local leader = redis.call('GET', prefix .. 'leader')
if leader and leader ~= me then return false end
redis.call('SET', prefix .. 'leader', me, 'PX', ttl)
local now, answer = now_ms(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', text(now), 'LIMIT', 0, limit)) do
  local row = redis.call('HMGET', row_key(id), 'session', 'instrument', 'strategy')
  if row[1] then
    set_due(id, now + grace)
    answer[#answer + 1] = id
    answer[#answer + 1] = row[1]
    answer[#answer + 1] = row[2]
    answer[#answer + 1] = row[3]
  else
    unset_due(id)
  end
end
return answer
