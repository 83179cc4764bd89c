-- Write steps of claimed exports, those of one export all or none. ARGV: prefix (id token count (step name value)*count)*
-- Steps: intent, receipt, previous (an earlier revision arrived), delivery, close, hold, note, settle. Answers for each 'ok',
-- 'cancel' (written, and a cancel was asked for), 'lost' (the fencing token is void: nothing written), or 'confirmed' (an
-- intent for a receipt that exists). A receipt or a settle shows that the export does not kill its worker: the count
-- of deaths begins anew.
local now = now_ms()

local function commit(id, token, first, last)
  local key = row_key(id)
  local asked = {'token', 'state', 'cancel'}
  for i = first, last, 3 do
    if ARGV[i] == 'intent' then asked[#asked + 1] = 'r:' .. ARGV[i + 1] end
  end
  local row = redis.call('HMGET', key, unpack(asked))
  if row[1] ~= token or row[2] ~= 'running' then return 'lost' end
  for i = 4, #asked do
    if row[i] then return 'confirmed' end
  end
  -- What is taken out goes before what is put in, and each in one call.
  local gone, put, notes = {}, {'updated', text(now)}, {}
  for i = first, last, 3 do
    local step, name, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if step == 'intent' then
      put[#put + 1], put[#put + 2] = 'i:' .. name, value
    elseif step == 'receipt' then
      put[#put + 1], put[#put + 2] = 'r:' .. name, value
      gone[#gone + 1], gone[#gone + 2] = 'i:' .. name, 'crashes'
    elseif step == 'previous' then
      put[#put + 1], put[#put + 2] = 'p:' .. name, value
      gone[#gone + 1] = 'i:' .. name
    elseif step == 'delivery' then
      put[#put + 1], put[#put + 2] = 'd:' .. name, value
    elseif step == 'close' then
      gone[#gone + 1] = 'i:' .. name
    elseif step == 'hold' then
      redis.call('ZADD', prefix .. 'held:' .. name, text(now), id)
    elseif step == 'note' then
      notes[#notes + 1] = value
    elseif step == 'settle' then
      -- name: the state; value: "<not_before in ms, 0 if final> <summary>"
      local at, summary = string.match(value, '^(%d+) (.*)$')
      if row[3] == '1' and (name == 'queued' or name == 'waiting') then
        -- The cancel came after the worker's last look; 'cancelling' was answered, so it holds.
        name, at = 'cancelled', '0'
        notes[#notes + 1] = cjson.encode({event = 'cancelled'})
      end
      for _, field in ipairs({'lease_owner', 'lease_until', 'cancel', 'crashes'}) do gone[#gone + 1] = field end
      for _, part in ipairs({'summary', summary, 'not_before', at, 'state', name}) do put[#put + 1] = part end
      move_index(id, row[2], name, now)
      if name == 'queued' or name == 'waiting' then set_due(id, math.max(tonumber(at), now)) else unset_due(id) end
    end
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  redis.call('HSET', key, unpack(put))
  if #notes > 0 then note_all(id, now, notes) end
  return row[3] == '1' and 'cancel' or 'ok'
end

local answers, i = {}, 2
while i <= #ARGV do
  local last = i + 2 + 3 * tonumber(ARGV[i + 2])
  answers[#answers + 1] = commit(ARGV[i], ARGV[i + 1], i + 3, last)
  i = last + 1
end
return answers
