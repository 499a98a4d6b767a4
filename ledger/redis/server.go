package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"github.com/stepward/stepward/ledger"
)

const (
	watchEvery   = time.Second
	inspectEvery = time.Minute
	remindEvery  = 10 * time.Minute
)

func (s *Store) dialContext(ctx context.Context, addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
	return s.dialer.dial(ctx, addr)
}

// learn keeps what a server says about a bucket.
func (s *Store) learn(bucket int, n renewed, took time.Duration) {
	s.epochs[bucket].Store(n.epoch)
	s.skew.Store(int64(n.time.Sub(s.real().Add(-took / 2))))
}

// raised tells that an epoch has begun.
func (s *Store) raised(n renewed) {
	why := "the server has restarted, or another has taken its place"
	if n.fresh == epochMissing {
		why = "the server remembered nothing: a first start, or one that was emptied"
	}
	s.log.Warn("the ledger's memory begins anew: single-use tokens issued before its fence are refused, and users verify once more",
		"ledger", "redis", "reason", why, "fence", time.Unix(0, n.epoch.before).UTC())
	select {
	case s.fences <- struct{}{}:
	default:
	}
}

// watchServer compares the epochs with the servers, connects again to ones that were lost, and looks at their settings.
func (s *Store) watchServer(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var inspected, reminded time.Time
	reachable := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fences:
			inspected = time.Time{}
		case <-tick.C:
		}
		part, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		err := s.renewAll(part)
		if err == nil && time.Since(inspected) >= inspectEvery {
			if err = s.inspect(part); err == nil {
				inspected = time.Now()
			}
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		if reachable != (err == nil) {
			reachable = err == nil
			s.tellReachable(err)
		}
		if s.isSkewed() && time.Since(reminded) >= remindEvery {
			reminded = time.Now()
			s.log.Warn("Redis's clock and this machine's differ: set both by NTP", "ledger", "redis", "ahead", s.Skew(), "leeway", s.leeway)
		}
	}
}

func (s *Store) tellReachable(err error) {
	if err != nil {
		s.log.Warn("the ledger's server cannot be used: single-use tokens get 503", "ledger", "redis", "err", explain(err))
		return
	}
	s.log.Info("the ledger's server can be used again", "ledger", "redis")
}

func (s *Store) isSkewed() bool { return s.Skew().Abs() > max(time.Second, s.leeway/2) }

// Skew is how far the server's clock is ahead of this machine's, as last seen. Keys stay for as long as they must by either clock
// when they are written, so it endangers none; but it shows that one of the clocks is wrong, and a fence is only as good as
// they are.
func (s *Store) Skew() time.Duration { return time.Duration(s.skew.Load()) }

// Memory is the part of maxmemory that is used on the fullest server, as last seen within a minute; 0 where there is no limit. At
// 1 reservations are ErrFull.
func (s *Store) Memory() float64 { return math.Float64frombits(s.used.Load()) }

// inspect looks at all servers' settings, and refuses reservations while one throws keys away.
func (s *Store) inspect(ctx context.Context) error {
	type seen struct {
		settings settings
		err      error
	}
	all, err := within(ctx, s, func(ctx context.Context) ([]seen, error) {
		var all []seen
		for _, node := range s.client.Nodes() {
			set, err := readSettings(ctx, node)
			all = append(all, seen{set, err})
		}
		return all, nil
	})
	if err != nil {
		return err
	}
	var used float64
	var unfit, failed error
	reached := 0
	for _, n := range all {
		if n.err != nil {
			failed = n.err // In a cluster a replica may be gone.
			continue
		}
		reached++
		used = max(used, n.settings.used)
		unfit = errors.Join(unfit, n.settings.fault())
		s.warn(n.settings)
	}
	if reached == 0 {
		return failed
	}
	s.used.Store(math.Float64bits(used))
	if unfit != nil {
		s.unfit.Store(&unfit)
		return unfit
	}
	s.unfit.Store(nil)
	return nil
}

// settings are a server's that matter to a ledger. Texts are "" where the server does not tell.
type settings struct {
	policy, appendOnly, appendSync string
	used                           float64
}

func readSettings(ctx context.Context, node rueidis.Client) (settings, error) {
	get := func(name string) rueidis.Completed { return node.B().ConfigGet().Parameter(name).Build() }
	replies := node.DoMulti(ctx, get("maxmemory-policy"), get("appendonly"), get("appendfsync"), node.B().Info().Section("memory").Build(),
		node.B().Info().Section("persistence").Build())
	for _, r := range replies {
		if err := r.NonRedisError(); err != nil {
			return settings{}, err
		}
	}
	value := func(i int, name string) string {
		m, err := replies[i].AsStrMap()
		if err != nil {
			return "" // CONFIG is forbidden, which many hosted servers do.
		}
		return m[name]
	}
	set := settings{policy: value(0, "maxmemory-policy"), appendOnly: value(1, "appendonly"), appendSync: value(2, "appendfsync")}
	memory, _ := replies[3].ToString() // What it does not tell is missing below.
	if set.policy == "" {
		set.policy = infoField(memory, "maxmemory_policy")
	}
	if most, err := strconv.ParseFloat(infoField(memory, "maxmemory"), 64); err == nil && most > 0 {
		used, _ := strconv.ParseFloat(infoField(memory, "used_memory"), 64)
		set.used = used / most
	}
	if set.appendOnly == "" {
		persistence, _ := replies[4].ToString()
		set.appendOnly = map[string]string{"0": "no", "1": "yes"}[infoField(persistence, "aof_enabled")]
	}
	return set, nil
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fault is why a server cannot keep a ledger. A policy is one also where maxmemory is 0: it needs only be set one day.
func (set settings) fault() error {
	switch set.policy {
	case "noeviction":
		return nil
	case "":
		return errors.New("the server does not say what it does when its memory is full: let the user run INFO or CONFIG GET, and set " +
			"maxmemory-policy noeviction")
	}
	return fmt.Errorf("the server's maxmemory-policy is %s: when its memory is full it throws away spent tokens, which could then be "+
		"spent again. Set maxmemory-policy noeviction, on a server for the ledger alone if others need it otherwise", set.policy)
}

// warn tells once what a server forgets when it crashes.
//
// None of it lets a token be spent twice by itself: a crash ends the run, so the fence rises and refuses what was issued before,
// whatever was kept. But then the fence alone stands between a forgotten token and its second use, and it rests on clocks:
// an issuer's that is ahead by more than the leeway dates a token after the fence.
func (s *Store) warn(set settings) {
	const rest = ": after a crash the fence alone refuses those tokens, and it trusts the clocks of issuers to within the leeway"
	var text string
	switch {
	case set.appendOnly == "":
		text = "Redis does not say whether it keeps spent tokens on disk: make sure of appendonly yes and appendfsync always" + rest
	case set.appendOnly == "no":
		text = "Redis forgets all spent tokens since its last snapshot in a crash: set appendonly yes and appendfsync always" + rest
	case set.appendSync == "":
		text = "Redis does not say when it syncs spent tokens to disk: make sure of appendfsync always" + rest
	case set.appendSync != "always":
		text = "Redis forgets the tokens spent in the last second in a crash, or more with appendfsync no: set appendfsync always" + rest
	default:
		return
	}
	if _, told := s.told.LoadOrStore(text, true); !told {
		s.log.Warn(text, "ledger", "redis", "appendonly", set.appendOnly, "appendfsync", set.appendSync)
	}
}

// Stats implements ledger.Store. Entries counts all keys in the database, whoever's they are, and keys that are over until the
// server drops them: it is an upper bound.
func (s *Store) Stats(ctx context.Context) (ledger.Stats, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Stats{}, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	n, err := within(ctx, s, s.countKeys)
	if err != nil {
		return ledger.Stats{}, unavailable(err)
	}
	var fence int64
	for i := range s.epochs {
		if e := s.epochs[i].Load(); e != nil {
			fence = max(fence, e.before)
		}
	}
	return ledger.Stats{Entries: max(0, n-int64(s.buckets)), Fence: time.Unix(0, fence)}, nil
}

func isText(m rueidis.RedisMessage, want string) bool {
	text, err := m.ToString()
	return err == nil && text == want
}

func (s *Store) countKeys(ctx context.Context) (int64, error) {
	var keys int64
	masters := 0
	var failed error
	for _, node := range s.client.Nodes() {
		r := node.DoMulti(ctx, node.B().Role().Build(), node.B().Dbsize().Build())
		role, err := r[0].ToArray()
		n, err2 := r[1].AsInt64()
		if err := errors.Join(err, err2); err != nil {
			failed = err
			continue
		}
		if len(role) > 0 && isText(role[0], "master") {
			masters++
			keys += n
		}
	}
	if masters == 0 {
		return 0, failed
	}
	return keys, nil
}
