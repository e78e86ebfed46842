-- A counter is a hash with three fields for each window: <code>n (the window's number), <code>u (used), <code>b (used in the window
-- before). Kinds of windows: 0 fixed, 1 fixed with debt, 2 sliding.

-- How a window stands now that its number is `number`.
local function stand(key, code, number, most, kind)
  local stored = redis.call('HMGET', key, code .. 'n', code .. 'u', code .. 'b')
  local last = tonumber(stored[1] or number)
  local used, before = tonumber(stored[2] or 0), tonumber(stored[3] or 0)
  if last > number then
    -- Another gateway's clock is ahead: a counter never goes back, or whoever is behind would open its window anew. Should that clock be
    -- wrong, what it has written is refused until it expires.
    number = last
  elseif last < number then
    local passed = number - last
    before = passed == 1 and used or 0
    used = kind == '1' and math.max(0, used - most * passed) or 0
  end
  return {code = code, number = number, most = most, kind = kind, used = used, before = before}
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Writes windows down, for as long as they say something: debt until it is paid.
local function keep(key, windows)
  local fields, seconds = {}, 1
  for _, window in ipairs(windows) do
    local code, lives = window.code, window.kind == '0' and 1 or 2
    if window.kind == '1' then
      lives = window.most > 0 and math.min(1000, math.max(1, math.ceil(window.used / window.most))) or 1000
    end
    for name, value in pairs({n = window.number, u = window.used, b = window.before}) do
      fields[#fields + 1] = code .. name
      fields[#fields + 1] = whole(value)
    end
    -- The number may be one ahead.
    seconds = math.max(seconds, window.length * (lives + 1))
  end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, whole(seconds))
end
