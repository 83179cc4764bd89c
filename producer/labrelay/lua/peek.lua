-- Read rows without their contexts, which may be megabytes. ARGV: prefix id*
-- Answers a flat list of fields and values per id, empty where there is no row.
local rows = {}
for i = 2, #ARGV do
  local key, row = row_key(ARGV[i]), {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field ~= 'context' then
      row[#row + 1] = field
      row[#row + 1] = redis.call('HGET', key, field)
    end
  end
  rows[#rows + 1] = row
end
return rows
