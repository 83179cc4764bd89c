-- Read exports whole: with contexts, which may be megabytes, so a few at a time. ARGV: prefix id*
-- Answers {row as a flat list, trail, what is packed or ''} per id.
local exports = {}
for i = 2, #ARGV do
  exports[#exports + 1] = {
    redis.call('HGETALL', row_key(ARGV[i])),
    redis.call('LRANGE', prefix .. 'trail:' .. ARGV[i], 0, -1),
    redis.call('GET', packed_key(ARGV[i])) or '',
  }
end
return exports
