-- Settles requests that have been charged, by what they came to.
--
-- KEYS: for each settlement what a repeat of it is known by, and its counter.
-- ARGV: how long a settlement is known (ms), then for each its difference (below 0 a refund) and its number of windows, and for each
--       window: its code, the number of the window in which it was charged, the present number, its limit, its kind, its length in
--       seconds.
-- The answer: how many were settled now.
local at = 2
local settled = 0
for k = 1, #KEYS, 2 do
  local difference, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  local new = redis.call('SET', KEYS[k], '1', 'NX', 'PX', ARGV[1])
  local fields = {}
  local ttl = 1
  for w = 1, count do
    local code, charged, number = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local most, kind, length = tonumber(ARGV[at + 3]), ARGV[at + 4], tonumber(ARGV[at + 5])
    at = at + 6
    local stored = redis.call('HMGET', KEYS[k + 1], code .. 'n', code .. 'u', code .. 'b')
    local used, before = tonumber(stored[2] or 0), tonumber(stored[3] or 0)
    local last = tonumber(stored[1] or number)
    if last == number + 1 then
      number = last
    elseif last < number then
      local passed = number - last
      before = passed == 1 and used or 0
      used = kind == '1' and math.max(0, used - most * passed) or 0
    end
    if difference > 0 then
      used = used + difference
    elseif number == charged then
      used = math.max(0, used + difference)
    elseif number == charged + 1 then
      -- It still weighs in a sliding window.
      before = math.max(0, before + difference)
    end
    fields[#fields + 1] = code .. 'n'
    fields[#fields + 1] = string.format('%.0f', number)
    fields[#fields + 1] = code .. 'u'
    fields[#fields + 1] = string.format('%.0f', used)
    fields[#fields + 1] = code .. 'b'
    fields[#fields + 1] = string.format('%.0f', before)
    local lives = kind == '0' and 1 or 2
    if kind == '1' and most > 0 then lives = math.min(1000, math.max(1, math.ceil(used / most))) end
    ttl = math.max(ttl, length * (lives + 1))
  end
  if new and count > 0 then
    redis.call('HSET', KEYS[k + 1], unpack(fields))
    redis.call('EXPIRE', KEYS[k + 1], math.ceil(ttl))
    settled = settled + 1
  end
end
return settled
