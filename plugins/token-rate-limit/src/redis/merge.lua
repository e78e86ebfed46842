-- Takes in what gateways have counted by themselves, what requests came to that had been charged, and takes charges back of which a
-- gateway never heard the end; tells how the counters stand.
--
-- KEYS: what a repeat of this batch finds its answer under, then for each item the operation that it takes back (else the first key
--       again) and a counter.
-- ARGV: how long answers are kept (ms), then for each item: what is to be added to the windows of its time (below 0: taken from
--       them), what is to be added whatever the time, how many windows it has, and for each of them: code, number, limit, kind, its
--       length in seconds, and the number it had at the item's time.
-- The answer: the batch's id, then of each window its number, what is used of it and what was used in the one before.
local known = redis.call('GET', KEYS[1])
if known then return known end
local at, answer, made = 2, {string.sub(KEYS[1], -32)}, {}
for k = 2, #KEYS, 2 do
  local operation, counter = KEYS[k], KEYS[k + 1]
  local within, over, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3
  if operation ~= KEYS[1] then
    if made[operation] == nil then
      local said = redis.call('GET', operation)
      -- Behind the id.
      made[operation] = said and string.sub(said, 34, 34) == '1' or false
      -- Should it still be on its way, it must not be made.
      redis.call('SET', operation, '0', 'PX', ARGV[1])
    end
    if not made[operation] then within = 0 end
  end
  local windows = {}
  for w = 1, count do
    local window = stand(counter, ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3])
    local charged = tonumber(ARGV[at + 5])
    window.length = tonumber(ARGV[at + 4])
    at = at + 6
    if window.number == charged then
      window.used = math.max(0, window.used + within)
    elseif window.number == charged + 1 then
      -- It still weighs in a sliding window, and may have become debt.
      local debt = math.max(0, window.before - window.most)
      window.before = math.max(0, window.before + within)
      if window.kind == '1' and within > 0 then
        window.used = window.used + math.max(0, window.before - window.most) - debt
      end
    end
    window.used = window.used + over
    windows[w] = window
    answer[#answer + 1] = whole(window.number)
    answer[#answer + 1] = whole(window.used)
    answer[#answer + 1] = whole(window.before)
  end
  if within ~= 0 or over ~= 0 then keep(counter, windows) end
end
local said = table.concat(answer, ' ')
redis.call('SET', KEYS[1], said, 'PX', ARGV[1])
return said
