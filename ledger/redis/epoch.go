package redis

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/stepward/stepward/ledger"
)

// epoch is the key without an end that says which server's memory this is and where it begins. text is compared on the server
// as a whole, in the script that reserves: a decision by an epoch that is over writes nothing.
type epoch struct {
	text   string
	before int64 // ns; claims issued earlier are refused
	lifts  int64 // ns; claims without a time of issue are refused until then
}

// refuses is ledger's rule for every fence.
func (e *epoch) refuses(issued time.Time, now int64) bool {
	if issued.IsZero() {
		return now < e.lifts
	}
	return ledger.Nanos(issued) < e.before
}

const (
	milli = int64(time.Millisecond)
	never = math.MaxInt64 / milli // in ms
)

// parseEpoch reads "run/replication nonce before lifts", times in ms.
func parseEpoch(text string) (*epoch, error) {
	fields := strings.Split(text, " ")
	if len(fields) != 4 {
		return nil, errors.New("the ledger's epoch key has another form: does something else use this prefix?")
	}
	before, err := strconv.ParseUint(fields[2], 10, 63)
	lifts, err2 := strconv.ParseUint(fields[3], 10, 63)
	if err != nil || err2 != nil {
		return nil, errors.New("the ledger's epoch key has times that are none: does something else use this prefix?")
	}
	return &epoch{text: text, before: fromMillis(int64(before)), lifts: fromMillis(int64(lifts))}, nil
}

func fromMillis(ms int64) int64 {
	if ms >= never {
		return math.MaxInt64
	}
	return ms * milli
}

// toMillis rounds up: a fence may be too high and a record may stay too long.
func toMillis(ns int64) int64 {
	if ns > math.MaxInt64-milli {
		return never + 1
	}
	return (ns + milli - 1) / milli
}

// renewArgs are renewScript's.
func (s *Store) renewArgs() []string {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // it never fails: see ledger.NewOwner
	before := s.now().Add(s.leeway)
	lifts := never
	if s.remember > 0 {
		lifts = toMillis(ledger.Nanos(before.Add(s.remember)))
	}
	mode := ""
	if s.address.mode == cluster {
		mode = "cluster"
	}
	decimal := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{
		hex.EncodeToString(nonce[:]), decimal(toMillis(max(0, ledger.Nanos(before)))), decimal(lifts),
		// Not s.now, which a test moves: the server's clock is a real one.
		decimal(s.leeway.Milliseconds()), decimal(s.real().UnixMilli()), mode,
	}
}

// What renewScript found.
const (
	epochKept    = 0
	epochMissing = 1
	epochOther   = 2 // another run's or another replication's
)

// renewed is what renewScript answered.
type renewed struct {
	epoch *epoch
	fresh int64 // epochKept, epochMissing or epochOther
	time  time.Time
}

func parseRenewed(text string, fresh int64, seconds, micros string) (renewed, error) {
	e, err := parseEpoch(text)
	if err != nil {
		return renewed{}, err
	}
	s, err := strconv.ParseInt(seconds, 10, 64)
	us, err2 := strconv.ParseInt(micros, 10, 64)
	if err != nil || err2 != nil {
		return renewed{}, errors.New("the server's time is none")
	}
	return renewed{e, fresh, time.Unix(s, us*1000)}, nil
}
