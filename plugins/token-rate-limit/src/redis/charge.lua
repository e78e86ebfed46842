-- Charges a request to all of its counters, or to none, and tells how they stand.
--
-- KEYS: what a repeat of this request finds its answer under, then one counter for each charge.
-- ARGV: how long that answer is kept (ms), then for each charge its amount and how many windows it has, and for each of them: code,
--       number, limit, kind, seconds left of it, its length in seconds.
-- The answer: the operation's id, 1 or 0, then of each window its number, what is used of it and what was used in the one before; after the charge, or as it
-- is where a window refuses.
local known = redis.call('GET', KEYS[1])
if known then return known end
local at, admitted, found = 2, 1, {}
for k = 2, #KEYS do
  local amount, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local windows = {}
  at = at + 2
  for w = 1, count do
    local number, left = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 4])
    local window = stand(KEYS[k], ARGV[at], number, tonumber(ARGV[at + 2]), ARGV[at + 3])
    local counts = window.used
    window.length = tonumber(ARGV[at + 5])
    at = at + 6
    if window.number > number then left = window.length end
    if window.kind == '2' then counts = counts + math.ceil(window.before * left / window.length) end
    if counts + amount > window.most then admitted = 0 end
    windows[w] = window
  end
  found[k] = {amount = amount, windows = windows}
end
local answer = {string.sub(KEYS[1], -32), whole(admitted)}
for k = 2, #KEYS do
  local amount = admitted == 1 and found[k].amount or 0
  for _, window in ipairs(found[k].windows) do
    window.used = window.used + amount
    answer[#answer + 1] = whole(window.number)
    answer[#answer + 1] = whole(window.used)
    answer[#answer + 1] = whole(window.before)
  end
  if amount > 0 then keep(KEYS[k], found[k].windows) end
end
local said = table.concat(answer, ' ')
redis.call('SET', KEYS[1], said, 'PX', ARGV[1])
return said
