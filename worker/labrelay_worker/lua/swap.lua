-- Replace a breaker's state if it is still the one that the decision was made from, so that the rules live in one
-- place (breaker.py) and no worker overwrites another's. ARGV: prefix destination expected new
-- Answers {swapped 1/0, the state now, now}; '' is a destination without a state.
local key, name, expected, new = prefix .. 'breakers', ARGV[2], ARGV[3], ARGV[4]
local current = redis.call('HGET', key, name) or ''
if current ~= expected then return {0, current, text(now_ms())} end
redis.call('HSET', key, name, new)
return {1, new, text(now_ms())}
