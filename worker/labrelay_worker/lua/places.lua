-- Prolong or free places among the concurrent calls of accounts. ARGV: prefix lease_ms (account holder)*; 0 frees
local lease, now = tonumber(ARGV[2]), now_ms()
for i = 3, #ARGV, 2 do
  local places = prefix .. 'places:' .. ARGV[i]
  if lease == 0 then
    redis.call('ZREM', places, ARGV[i + 1])
  else
    redis.call('ZADD', places, text(now + lease), ARGV[i + 1])
    redis.call('PEXPIRE', places, text(2 * lease))
  end
end
return 'OK'
