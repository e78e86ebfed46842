-- Charges a request to all of its counters, or to none, and tells how they stand.
--
-- KEYS: what a repeat of this request finds its answer under, then one counter for each charge.
-- ARGV: how long that answer is kept (ms), then for each charge its amount and its number of windows, and for each window: its code,
--       its number, its limit, its kind (0 fixed, 1 fixed with debt, 2 sliding), the seconds left of it, its length in seconds.
-- A counter is a hash with the fields <code>n (the window's number), <code>u (used), <code>b (used in the window before).
-- The answer: 1 or 0, then for each window what is used of it and its number; after a charge, or as it is where one refuses.
local known = redis.call('GET', KEYS[1])
if known then return known end
local at = 2
local admitted = 1
local found = {}
for k = 2, #KEYS do
  local counter = {amount = tonumber(ARGV[at]), windows = {}}
  local count = tonumber(ARGV[at + 1])
  at = at + 2
  for w = 1, count do
    local code, number, most = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local kind, left, length = ARGV[at + 3], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    at = at + 6
    local stored = redis.call('HMGET', KEYS[k], code .. 'n', code .. 'u', code .. 'b')
    local used, before = tonumber(stored[2] or 0), tonumber(stored[3] or 0)
    local last = tonumber(stored[1] or number)
    if last == number + 1 then
      -- Another gateway's clock is ahead.
      number = last
    elseif last < number then
      local passed = number - last
      before = passed == 1 and used or 0
      used = kind == '1' and math.max(0, used - most * passed) or 0
    end
    local counted = used
    if kind == '2' then counted = used + math.ceil(before * left / length) end
    if counted + counter.amount > most then admitted = 0 end
    -- Debt is kept until it is paid.
    local lives = kind == '0' and 1 or 2
    if kind == '1' and most > 0 then lives = math.min(1000, math.max(1, math.ceil((used + counter.amount) / most))) end
    counter.windows[w] = {code = code, number = number, used = used, before = before, counted = counted,
                          ttl = left + length * lives}
  end
  found[k] = counter
end
local answer = {tostring(admitted)}
for k = 2, #KEYS do
  local counter = found[k]
  local ttl = 1
  local fields = {}
  for _, window in ipairs(counter.windows) do
    local more = admitted == 1 and counter.amount or 0
    answer[#answer + 1] = string.format('%.0f', window.counted + more)
    answer[#answer + 1] = string.format('%.0f', window.number)
    fields[#fields + 1] = window.code .. 'n'
    fields[#fields + 1] = string.format('%.0f', window.number)
    fields[#fields + 1] = window.code .. 'u'
    fields[#fields + 1] = string.format('%.0f', window.used + more)
    fields[#fields + 1] = window.code .. 'b'
    fields[#fields + 1] = string.format('%.0f', window.before)
    ttl = math.max(ttl, window.ttl)
  end
  if admitted == 1 then
    redis.call('HSET', KEYS[k], unpack(fields))
    redis.call('EXPIRE', KEYS[k], math.ceil(ttl))
  end
end
local said = table.concat(answer, ' ')
redis.call('SET', KEYS[1], said, 'PX', ARGV[1])
return said
