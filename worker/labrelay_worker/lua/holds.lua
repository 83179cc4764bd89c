-- How destinations stand. ARGV: prefix destination*
-- Answers {now, {breaker, pause, how many exports wait}*}, '' for what there is not.
local answer = {text(now_ms())}
for i = 2, #ARGV do
  answer[#answer + 1] = {
    redis.call('HGET', prefix .. 'breakers', ARGV[i]) or '',
    redis.call('HGET', prefix .. 'pauses', ARGV[i]) or '',
    redis.call('ZCARD', prefix .. 'held:' .. ARGV[i]),
  }
end
return answer
