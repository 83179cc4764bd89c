-- Reserve one call of an account: a place among its concurrent calls, and a time at its pace (GCRA without bursts).
-- ARGV: prefix account interval_ms patience_ms concurrent holder lease_ms spacing_ms; 0: no such limit
-- Answers {'go', ms until the call may begin}, {'full', 0}: no place, ask again while you have patience, or
-- {'later', ms until it is your turn to ask again}; nothing is reserved then.
-- Times to ask again are handed out `spacing` apart, so that all who wait do not come back at once, again and again.
local account, interval, patience = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local concurrent, holder, lease, spacing = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local pace, places = prefix .. 'pace:' .. account, prefix .. 'places:' .. account
local longest = 3600 * 1000
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000  -- with its fraction: at 300 calls a second, a rounded millisecond is a third

local function exact(number) return string.format('%.3f', number) end

local function later(earliest)
  local tail = math.max(earliest, (tonumber(redis.call('HGET', pace, 'tail') or '0')) + spacing)
  tail = math.min(tail, now + longest)
  redis.call('HSET', pace, 'tail', exact(tail))
  redis.call('PEXPIRE', pace, 2 * longest)
  return {'later', exact(tail - now)}
end

local at = now
if interval > 0 then at = math.max(now, tonumber(redis.call('HGET', pace, 'next') or '0')) end
if at - now > patience then return later(at) end
if concurrent > 0 then
  redis.call('ZREMRANGEBYSCORE', places, '-inf', exact(now))  -- their workers are dead
  if redis.call('ZCARD', places) >= concurrent then
    if patience > 0 then return {'full', '0'} end
    return later(now + spacing)
  end
  redis.call('ZADD', places, exact(at + lease), holder)
  redis.call('PEXPIRE', places, text(at - now + 2 * lease))
end
if interval > 0 then
  redis.call('HSET', pace, 'next', exact(at + interval))
  redis.call('PEXPIRE', pace, 2 * longest)
end
return {'go', exact(at - now)}
