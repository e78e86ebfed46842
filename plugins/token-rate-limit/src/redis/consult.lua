-- Tells how counters stand, after an operator's correction where there is one.
--
-- KEYS: what a repeat of this question finds its answer under, then the counters.
-- ARGV: how long the answer to a correction is kept (ms), then for each counter how many windows it has, and for each of them: code,
--       number, limit, kind, its length in seconds, and what is to be added (below 0: taken away, down to nothing), or `reset`.
-- The answer: the question's id, then of each window its number, what is used of it and what was used in the one before.
local known = redis.call('GET', KEYS[1])
if known then return known end
local at, answer, corrected = 2, {string.sub(KEYS[1], -32)}, false
for k = 2, #KEYS do
  local count, changed, windows = tonumber(ARGV[at]), false, {}
  at = at + 1
  for w = 1, count do
    local window = stand(KEYS[k], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3])
    local order = ARGV[at + 5]
    window.length = tonumber(ARGV[at + 4])
    at = at + 6
    if order == 'reset' then
      window.used, window.before, changed = 0, 0, true
    elseif order ~= '0' then
      window.used, changed = math.max(0, window.used + tonumber(order)), true
    end
    windows[w] = window
    answer[#answer + 1] = whole(window.number)
    answer[#answer + 1] = whole(window.used)
    answer[#answer + 1] = whole(window.before)
  end
  if changed then keep(KEYS[k], windows) end
  corrected = corrected or changed
end
local said = table.concat(answer, ' ')
if corrected then redis.call('SET', KEYS[1], said, 'PX', ARGV[1]) end
return said
