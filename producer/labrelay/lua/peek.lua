-- Read rows without their contexts, which may be megabytes, and with what is packed. ARGV: prefix id*
-- Answers a flat list of fields and values per id, empty where there is no row.
local rows = {}
for i = 2, #ARGV do
  local key, row, fields = row_key(ARGV[i]), {}, {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field ~= 'context' then fields[#fields + 1] = field end
  end
  if #fields > 0 then
    for n, value in ipairs(redis.call('HMGET', key, unpack(fields))) do
      row[#row + 1] = fields[n]
      row[#row + 1] = value
    end
    local packed = redis.call('GET', packed_key(ARGV[i]))
    if packed then row[#row + 1], row[#row + 2] = 'packed', packed end
  end
  rows[#rows + 1] = row
end
return rows
