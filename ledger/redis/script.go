package redis

import (
	"crypto/sha1" //nolint:gosec // Redis names a script by its SHA-1
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is what runs on the server, at once or not at all.
type script struct {
	text, sha string
	claims    bool // it is claimScript, whose answers are the records that are there
}

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see its import
	return script{text: text, sha: hex.EncodeToString(sum[:])}
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
	saysClock    = 't' // the server's clock is further ahead than was thought; nothing was looked at
	saysLook     = 'l' // what is there has ended: reserveScript can tell
	saysDone     = 'd'
	saysNotHeld  = 'x'
)

const recordSize, untilSize = 52, 19

// The scripts below work on many records: KEYS epoch, record, record, … and ARGV the epoch as the caller knows it, and then the
// same number of texts for each record. They answer a list of one text for each. An error that is one record's own (a value of
// another type, which is nobody's record) must not undo what the others were told, so that it is an answer too. All other errors
// (a full memory, too few replicas, a user who may not) are those of the script as a whole, and come before it writes anything.

func claiming(text string) script {
	sc := newScript(text)
	sc.claims = true
	return sc
}

// claimScript is how nearly all reservations are made: one SET NX for each record, whose ARGV are the record and when it ends (ms).
// It has two more ARGV before the records: the time (ms) up to which the ends are good by the server's clock too, and the echo.
// It answers the echo, "e" for another epoch, "t" for a clock that is further ahead, and for each record "" where it is new, else
// what was there.
var claimScript = claiming(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {ARGV[3], 'e'} end
local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[2]) then return {ARGV[3], 't'} end
local said = {ARGV[3], ''}
for i = 2, #KEYS do
	local held = redis.pcall('SET', KEYS[i], ARGV[2 * i], 'NX', 'GET', 'PXAT', ARGV[2 * i + 1])
	if not held then
		said[i + 1] = ''
	elseif type(held) == 'string' then
		said[i + 1] = held
	elseif string.sub(held.err, 1, 9) == 'WRONGTYPE' then
		said[i + 1] = '?'
	else
		return held
	end
end
return said`)

// reserveScript is for the rest: it looks again whether an attempt has been written, writes over records that have ended by the
// caller's clock, and asks the server what time it is. It has for each record ARGV attempt, owner, until and now (19 digits), until and what is left of it (ms), and "1"
// where this very attempt may have been written before ("mine").
//
// The key stays at least for what is left, by the server's clock too: one that is ahead must not drop it early. A record
// that has another form is somebody else's and is not touched.
//
// What is mine is written once more: WAIT looks at what its own connection wrote.
var reserveScript = newScript(`
local current = redis.call('GET', KEYS[1]) == ARGV[1]
local time, said = redis.call('TIME'), {}
local clock = time[1] * 1000 + math.ceil(time[2] / 1000)
local function reserve(key, attempt, owner, ends, now, endsms, left, mine)
	if not current then return 'e' end
	local held = redis.pcall('GET', key)
	if type(held) == 'table' then return '?' end
	if held and (#held ~= 52 or string.sub(held, 34) > now) then
		if mine ~= '1' or string.sub(held, 1, 32) ~= owner .. attempt then
			if string.sub(held, 33, 33) == 'c' then return 'c' end
			return 'r'
		end
	end
	redis.call('SET', key, owner .. attempt .. 'r' .. ends, 'PXAT', string.format('%.0f', math.max(tonumber(endsms), clock + tonumber(left))))
	return 'g'
end
for i = 2, #KEYS do
	local a = 2 + (i - 2) * 7
	said[i - 1] = reserve(KEYS[i], ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5], ARGV[a + 6]) .. ARGV[a]
end
return said`)

// commitScript has for each record ARGV owner, now.
var commitScript = newScript(`
local said = {}
for i = 2, #KEYS do
	local owner, now = ARGV[2 + (i - 2) * 2], ARGV[3 + (i - 2) * 2]
	local held, word = redis.pcall('GET', KEYS[i]), 'd'
	if type(held) ~= 'string' or #held ~= 52 or string.sub(held, 1, 16) ~= owner or string.sub(held, 34) <= now then
		word = 'x'
	elseif string.sub(held, 33, 33) == 'r' then
		redis.call('SETRANGE', KEYS[i], 32, 'c')
	end
	said[i - 1] = word .. owner
end
return said`)

// releaseScript has for each record ARGV owner, now.
var releaseScript = newScript(`
local said = {}
for i = 2, #KEYS do
	local owner, now = ARGV[2 + (i - 2) * 2], ARGV[3 + (i - 2) * 2]
	local held, word = redis.pcall('GET', KEYS[i]), 'd'
	if type(held) ~= 'string' or #held ~= 52 or string.sub(held, 1, 16) ~= owner or string.sub(held, 34) <= now or string.sub(held, 33, 33) ~= 'r' then
		word = 'x'
	else
		redis.call('DEL', KEYS[i])
	end
	said[i - 1] = word .. owner
end
return said`)

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
if major and major * 100 + minor < 700 then return redis.error_reply('STEPWARD old') end
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

func (sc script) eval(b rueidis.Builder, keys, args []string) rueidis.Completed {
	return b.Eval().Script(sc.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

func isUnknownScript(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	return ok && answer.IsNoScript()
}
