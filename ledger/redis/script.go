package redis

import (
	"crypto/sha1" //nolint:gosec // Redis names a script by its SHA-1
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is what runs on the server, at once or not at all.
type script struct{ text, sha string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see its import
	return script{text, hex.EncodeToString(sum[:])}
}

// A record has 52 bytes: owner (16), attempt (16), state r or c, and until (19 digits). Times in nanoseconds are compared as
// digits, since Lua's numbers have 53 bits.

// What the scripts answer, before the attempt or the owner that they answer. With that, an answer that belongs to another
// question, on a connection that is out of step, is found out.
const (
	saysGranted  = 'g'
	saysReserved = 'r'
	saysConsumed = 'c'
	saysEpoch    = 'e' // the epoch is another or missing; nothing was looked at
	saysDone     = 'd'
	saysNotHeld  = 'x'
)

// reserveScript has KEYS record, epoch and ARGV epoch, attempt, owner, until and now (19 digits), until and what is left of
// it (ms), and "1" where this very attempt may have been written before ("mine").
//
// The key stays at least for what is left, by the server's clock too: one that is ahead must not drop it early. A record
// that has another form is somebody else's and is not touched.
//
// What is mine is written once more: WAIT looks at what its own connection wrote.
var reserveScript = newScript(`
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'e' .. ARGV[2] end
local held = redis.call('GET', KEYS[1])
if held and (#held ~= 52 or string.sub(held, 34) > ARGV[5]) then
	if ARGV[8] ~= '1' or string.sub(held, 1, 32) ~= ARGV[3] .. ARGV[2] then
		if string.sub(held, 33, 33) == 'c' then return 'c' .. ARGV[2] end
		return 'r' .. ARGV[2]
	end
end
local time = redis.call('TIME')
local ends = math.max(tonumber(ARGV[6]), time[1] * 1000 + math.ceil(time[2] / 1000) + tonumber(ARGV[7]))
redis.call('SET', KEYS[1], ARGV[3] .. ARGV[2] .. 'r' .. ARGV[4], 'PXAT', string.format('%.0f', ends))
return 'g' .. ARGV[2]`)

// commitScript has KEYS record and ARGV owner, now.
var commitScript = newScript(`
local held = redis.call('GET', KEYS[1])
if not held or #held ~= 52 or string.sub(held, 1, 16) ~= ARGV[1] or string.sub(held, 34) <= ARGV[2] then return 'x' .. ARGV[1] end
if string.sub(held, 33, 33) == 'r' then redis.call('SETRANGE', KEYS[1], 32, 'c') end
return 'd' .. ARGV[1]`)

// releaseScript has KEYS record and ARGV owner, now.
var releaseScript = newScript(`
local held = redis.call('GET', KEYS[1])
if not held or #held ~= 52 or string.sub(held, 1, 16) ~= ARGV[1] or string.sub(held, 34) <= ARGV[2] or string.sub(held, 33, 33) ~= 'r' then
	return 'x' .. ARGV[1]
end
redis.call('DEL', KEYS[1])
return 'd' .. ARGV[1]`)

// renewScript makes sure that the epoch belongs to this server as it is now. It has KEYS epoch and ARGV a fresh nonce, the
// fence's before and lifts (ms), the leeway (ms), the caller's real time (ms) and "cluster" or "". It answers the epoch,
// whether it is new, and the server's time.
//
// The identity is the run's and the replication's: a server that was a replica for a while and is a master again has the
// same run, but may lack what the master in between was told; its master_replid is another. (It changes as well when the
// first replica comes and when the last has been gone for an hour. The fence is then raised without need, once.)
//
// A caller whose clock is behind the server's by more than the leeway would raise the fence too low: it rises to the server's
// time. One whose clock is more than a minute away begins no epoch: its fence would let used tokens pass or refuse a fleet's
// good ones for long, and somebody whose clock is right can do it.
var renewScript = newScript(`
local server, replication = redis.call('INFO', 'server'), redis.call('INFO', 'replication')
local function field(text, name) return string.match('\n' .. text, '\n' .. name .. ':([^\r\n]+)') end
if field(replication, 'role') ~= 'master' then return redis.error_reply('READONLY this server is a replica') end
local mode = field(server, 'redis_mode') or field(server, 'server_mode')
if (mode == 'cluster') ~= (ARGV[6] == 'cluster') then return redis.error_reply('STEPWARD ' .. tostring(mode)) end
local run, replid = field(server, 'run_id'), field(replication, 'master_replid')
if not run or not replid then return redis.error_reply('STEPWARD nameless') end
local major, minor = string.match(field(server, 'redis_version') or '', '^(%d+)%.(%d+)')
if major and major * 100 + minor < 602 then return redis.error_reply('STEPWARD old') end
local time = redis.call('TIME')
local identity = run .. '/' .. replid .. ' '
local epoch = redis.call('GET', KEYS[1])
if epoch and string.sub(epoch, 1, #identity) == identity then return {epoch, 0, time[1], time[2]} end
local found = epoch and 2 or 1
local skew = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[5])
if math.abs(skew) > 60000 then return redis.error_reply('STEPWARD skew ' .. string.format('%.0f', skew / 1000)) end
local behind = math.max(0, skew - tonumber(ARGV[4]))
epoch = identity .. ARGV[1] .. ' ' .. string.format('%.0f', ARGV[2] + behind) .. ' ' .. string.format('%.0f', ARGV[3] + behind)
redis.call('SET', KEYS[1], epoch)
return {epoch, found, time[1], time[2]}`)

// evalsha calls a script, which the server may not know: see isUnknownScript.
func (sc script) evalsha(b rueidis.Builder, keys, args []string) rueidis.Completed {
	return b.Evalsha().Sha1(sc.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

func (sc script) eval(b rueidis.Builder, keys, args []string) rueidis.Completed {
	return b.Eval().Script(sc.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

func isUnknownScript(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	return ok && answer.IsNoScript()
}
