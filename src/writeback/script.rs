//! The compare-and-set of a flush, as a script: one step for the server, and the same on all of them.
//!
//! `SET … IFEQ` compares too, on few servers, with the whole old value in the request, and not with "absent", with one of
//! several, or with a time; so there is one way for all.

/// `KEYS[1]`; then `s` or `d`, the value, when it ends (milliseconds, or nothing), and what may stand there, a word each: `a`
/// nothing, `v` and the SHA-1 of a value, `t` another type. Gives 1 if it has set the value, 2 if it has
/// deleted the key, 3 or 4 if that was done before, by a flush whose reply was lost, maybe with its announcement; and else what stands there, in the same words.
pub const FLUSH: &str = "\
local key, op, value, ends = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local kind = redis.call('TYPE', key)['ok']
local stands = 't' .. kind
if kind == 'none' then stands = 'a' end
if kind == 'string' then stands = 'v' .. redis.sha1hex(redis.call('GET', key)) end
for i = 4, #ARGV do
  local base = ARGV[i]
  if base == stands or base == 't' and string.sub(stands, 1, 1) == 't' then
    if op == 'd' then
      redis.call('DEL', key)
      return 2
    end
    redis.call('SET', key, value)
    if ends ~= '' and redis.call('PEXPIREAT', key, ends) == 1 and redis.call('EXISTS', key) == 0 then return 2 end
    return 1
  end
end
if op == 's' and stands == 'v' .. redis.sha1hex(value) then return 3 end
if op == 'd' and stands == 'a' then return 4 end
return stands
";
