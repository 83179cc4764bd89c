-- Prolong leases. ARGV: prefix lease_ms (id token)*
-- Answers one of 'held', 'cancel', 'lost' for each.
local lease = tonumber(ARGV[2])
local now, answers = now_ms(), {}
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local key = row_key(id)
  local row = redis.call('HMGET', key, 'token', 'state', 'cancel')
  if row[1] == token and row[2] == 'running' then
    redis.call('HSET', key, 'lease_until', text(now + lease))
    set_due(id, now + lease)
    answers[#answers + 1] = row[3] == '1' and 'cancel' or 'held'
  else
    answers[#answers + 1] = 'lost'
  end
end
return answers
