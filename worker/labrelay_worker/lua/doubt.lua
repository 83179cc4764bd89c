-- Doubt what an unfinished export has not confirmed: since the backup that was restored it may have been delivered.
-- ARGV: prefix id by destination*. Answers how many deliveries are in doubt, or -1: there is nothing unfinished.
local id, by = ARGV[2], ARGV[3]
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'revision')
local state = row[1]
if state ~= 'queued' and state ~= 'waiting' and state ~= 'running' then return -1 end
local doubts = 0
for i = 4, #ARGV do
  if redis.call('HEXISTS', key, 'r:' .. ARGV[i]) == 0 then
    local intent = {attempt = 0, at = now / 1000, worker = by, revision = tonumber(row[2])}
    redis.call('HSETNX', key, 'i:' .. ARGV[i], cjson.encode(intent))
    doubts = doubts + 1
  end
end
-- A worker that outlived the restore must not write what it knows from before.
redis.call('HINCRBY', key, 'token', 1)
redis.call('HDEL', key, 'lease_owner', 'lease_until')
redis.call('HSET', key, 'not_before', 0)
move_state(id, state, 'queued', now)
set_due(id, now)
note(id, now, cjson.encode({event = 'doubted', worker = by, detail = 'Redis was restored from a backup'}))
return doubts
