// Package redis is a ledger in a Redis or Valkey server (7.0 or newer), behind Sentinels, or in a cluster.
//
// A reservation is one script on the master. It writes the key if it is absent, and only while the ledger's epoch is the one
// that decided whether the token is new enough. The epoch is a key without an end that names the server's run. Where it is
// missing (a first start, FLUSHALL, an empty restart) or names another run (a restart, a promoted replica), the server may
// have forgotten something; then a new epoch begins, with a fence: tokens issued before are refused.
//
// The server's user needs no more than
//
//	ACL SETUSER stepward on >password resetkeys ~stepward:* resetchannels -@all
//	  +eval +evalsha +get +set +setrange +del +time +info +role +ping +select +dbsize +config|get +wait
//
// of which config|get may be left out (then nobody can say whether writes are synced), and wait is for WaitReplicas. In a
// cluster it needs
//
//	+cluster|slots +cluster|shards
//
// too, and with WaitReplicas also +discard +unsubscribe +punsubscribe +sunsubscribe. Where a Sentinel has users, its own needs
//
//	ACL SETUSER stepward on >password allchannels -@all +role +ping +sentinel +subscribe +unsubscribe +psubscribe +punsubscribe
package redis

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"github.com/stepward/stepward/ledger"
)

// Config configures a Store. Its zero values are good, URL apart.
type Config struct {
	// URL is redis://user@host:6379/0, redis+sentinel://user@host:26379,host:26379/master/0 or
	// redis+cluster://user@host:6379,host:6379; rediss, rediss+sentinel and rediss+cluster are the same with TLS.
	URL          string
	PasswordFile string // holds a password, in place of one in the URL; line ends after it do not count
	CAFile       string // PEM certificates that the server's may come from; "" is the system's
	CertFile     string // PEM certificate shown to the server
	KeyFile      string // its key
	Prefix       string // begins all keys; "" is stepward
	// Timeout bounds each call; zero is 50 ms. A third of it is kept to ask again what became of a reservation.
	Timeout time.Duration
	// WaitReplicas is how many replicas must have a reservation before it is granted; without them it is ErrUnknown, and
	// spent. Zero waits for none.
	WaitReplicas int
	WaitTimeout  time.Duration // how long to wait for them; zero is 30 ms
	Leeway       time.Duration // how far issuers' clocks may be ahead: the one that verification uses
	// Remember is the longest time for which claims without IssuedAt are remembered. For so long after an epoch's begin they
	// are refused; zero refuses them always.
	Remember time.Duration
	Now      func() time.Time // nil is time.Now
	Log      *slog.Logger     // nil is slog.Default
}

// clusterBuckets is how many parts the keys of a cluster are in. All of one part lie in one slot, with its epoch.
const clusterBuckets = 16

// Store is a ledger.Store in a Redis.
type Store struct {
	address  address
	tls      *tls.Config
	prefix   string
	timeout  time.Duration
	replicas int
	patience time.Duration // for replicas
	leeway   time.Duration
	remember time.Duration
	now      func() time.Time
	real     func() time.Time // time.Now, which the server's clock is compared with
	log      *slog.Logger

	client  rueidis.Client
	dialer  *dialer
	links   links
	buckets int
	epochs  []atomic.Pointer[epoch] // by bucket: the last that a server told

	claiming, reserving, committing, releasing []queue // by bucket

	instance [8]byte       // of this store, in attempts
	attempts atomic.Uint64 // so that no two attempts are equal
	misses   atomic.Int64  // calls without an answer since the last one that had one

	told   sync.Map              // warnings that were given
	unfit  atomic.Pointer[error] // why the server cannot keep a ledger, as far as known
	skew   atomic.Int64          // ns, the server's clock ahead
	used   atomic.Uint64         // bits of a float: see Memory
	fences chan struct{}         // an epoch has begun: look at the server anew

	stop  context.CancelFunc
	watch sync.WaitGroup

	mu     sync.RWMutex
	closed bool           // guarded by mu
	calls  sync.WaitGroup // added to under mu, so not after closed
	once   sync.Once
}

// Open connects, makes sure that the server can keep a ledger, and begins an epoch if it must.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := newStore(c)
	if err != nil {
		return nil, fmt.Errorf("ledger: redis: %w", err)
	}
	return s.open(ctx)
}

func (s *Store) open(ctx context.Context) (*Store, error) {
	if err := s.begin(ctx); err != nil {
		_ = s.Close() // The first error says more.
		return nil, fmt.Errorf("ledger: redis: %w", explain(err))
	}
	return s, nil
}

func newStore(c Config) (*Store, error) {
	a, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if err := c.check(a); err != nil {
		return nil, err
	}
	s := &Store{
		address: a, prefix: c.Prefix, timeout: c.Timeout, replicas: c.WaitReplicas, patience: c.WaitTimeout, leeway: c.Leeway,
		remember: c.Remember, now: c.Now, real: time.Now, log: c.Log, buckets: 1, fences: make(chan struct{}, 1), stop: func() {},
	}
	s.defaults()
	if s.tls, err = c.tlsConfig(a); err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		if s.address.password, err = readPassword(c.PasswordFile); err != nil {
			return nil, err
		}
	}
	if s.address.user != "" && s.address.password == "" {
		return nil, errors.New("the address names a user without a password: write a password file")
	}
	if a.mode == cluster {
		s.buckets = clusterBuckets
	}
	s.epochs = make([]atomic.Pointer[epoch], s.buckets)
	s.claiming, s.reserving = s.queues(claimScript), s.queues(reserveScript)
	s.committing, s.releasing = s.queues(commitScript), s.queues(releaseScript)
	_, _ = rand.Read(s.instance[:]) // it never fails: see ledger.NewOwner
	s.dialer = newDialer(s.connect)
	return s, nil
}

func (s *Store) queues(sc script) []queue {
	list := make([]queue, s.buckets)
	for b := range list {
		list[b].store, list[b].script, list[b].bucket = s, sc, b
	}
	return list
}

func (s *Store) defaults() {
	if s.prefix == "" {
		s.prefix = "stepward"
	}
	if s.timeout == 0 {
		s.timeout = 50 * time.Millisecond
	}
	if s.patience == 0 {
		s.patience = 30 * time.Millisecond
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
}

// begin returns before its caller's time is over, and leaves to Close what still goes on.
func (s *Store) begin(ctx context.Context) error {
	type made struct {
		client rueidis.Client
		err    error
	}
	done := make(chan made, 1)
	s.watch.Go(func() {
		client, err := rueidis.NewClient(s.options())
		if err == nil && s.address.mode == cluster && client.Mode() != rueidis.ClientModeCluster {
			err = errors.New("the server is not part of a cluster: write redis:// in place of redis+cluster://")
		}
		if err != nil && client != nil {
			client.Close()
		}
		done <- made{client, err}
	})
	select {
	case m := <-done:
		if m.err != nil {
			return m.err
		}
		s.client = m.client
	case <-ctx.Done():
		s.watch.Go(func() {
			if m := <-done; m.err == nil {
				m.client.Close()
			}
		})
		return fmt.Errorf("no connection in time: %w", ctx.Err())
	}
	if err := s.renewAll(ctx); err != nil {
		return err
	}
	if err := s.inspect(ctx); err != nil {
		return err
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.watch.Go(func() { s.watchServer(background) })
	return nil
}

func (s *Store) options() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: s.address.hosts, SelectDB: s.address.db, DialCtxFn: s.dialContext, ClientSetInfo: rueidis.DisableClientSetInfo,
		// A script that is sent twice would be refused by itself.
		DisableRetry: true, DisableCache: true,
		AlwaysPipelining: true, PipelineMultiplex: -1, BlockingPoolSize: 128, BlockingPoolCleanup: time.Minute,
		ReadBufferEachConn: 64 << 10, WriteBufferEachConn: 64 << 10,
		ConnWriteTimeout:  max(dialTimeout, 2*s.timeout),
		ForceSingleClient: s.address.mode == single,
		ClusterOption:     rueidis.ClusterOption{ShardsRefreshInterval: 10 * time.Second, MaxMovedRedirections: 5},
	}
	o.Dialer.Timeout, o.Dialer.KeepAlive = 2*dialTimeout, time.Second
	if s.address.mode == sentinel {
		o.Sentinel = rueidis.SentinelOption{MasterSet: s.address.master, TopologyRefreshInterval: 5 * time.Second, Dialer: o.Dialer}
	}
	// Neither TLS nor a password: the connections that it gets have both already.
	return o
}

// Reserve implements ledger.Store.
func (s *Store) Reserve(ctx context.Context, c ledger.Claim) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.calls.Done()
	if unfit := s.unfit.Load(); unfit != nil {
		return unavailable(*unfit)
	}
	now, until := max(0, ledger.Nanos(s.now())), ledger.Nanos(c.Until)
	if until <= now {
		return ledger.ErrFenced
	}
	return s.reserve(ctx, s.deadline(ctx), s.newAttempt(c, now, until))
}

// deadline is when a call ends. A context of its own would cost as much as all the rest of it.
func (s *Store) deadline(ctx context.Context) time.Time {
	at := time.Now().Add(s.timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(at) {
		return earlier
	}
	return at
}

func isOver(ctx context.Context, deadline time.Time) bool {
	return ctx.Err() != nil || !time.Now().Before(deadline)
}

// attempt is one call of Reserve.
type attempt struct {
	token  ledger.Claim
	bucket int
	id     string // unlike every other attempt's, those of the same owner included
	epoch  string // that decided whether the token is new enough
	key    string
	mine   bool // it may have been written before

	now, until int64 // ns
}

func (s *Store) newAttempt(c ledger.Claim, now, until int64) *attempt {
	id := make([]byte, 0, 16)
	id = append(id, s.instance[:]...)
	id = binary.BigEndian.AppendUint64(id, s.attempts.Add(1))
	b := s.bucketOf(c.Key)
	return &attempt{token: c, now: now, until: until, bucket: b, id: string(id), key: s.recordKey(b, c.Key)}
}

// slack is how much further ahead the server's clock may be than when it was last looked at, before it is asked.
const slack = time.Second

// claim asks for a as most are: nothing of the token is there.
func (a *attempt) claim(s *Store, deadline time.Time) *question {
	// By the server's clock too the key stays at least for what is left.
	clock := ledger.Nanos(s.real().Add(slack + max(0, s.Skew())))
	ends := max(toMillis(a.until), toMillis(clock+a.until-a.now))
	record := make([]byte, 0, recordSize)
	record = append(append(append(record, a.token.Owner[:]...), a.id...), 'r')
	return &question{
		key: a.key, shared: a.epoch, args: []string{string(appendDigits(record, a.until)), strconv.FormatInt(ends, 10)},
		now: a.now, clock: clock / int64(time.Millisecond), echo: a.id, deadline: deadline,
	}
}

// question asks for a in any case, and may do so again.
func (a *attempt) question(deadline time.Time) *question {
	mine := ""
	if a.mine {
		mine = "1"
	}
	return &question{key: a.key, shared: a.epoch, echo: a.id, deadline: deadline, args: []string{
		a.id, string(a.token.Owner[:]), digits(a.until), digits(a.now),
		strconv.FormatInt(toMillis(a.until), 10), strconv.FormatInt(toMillis(a.until-a.now), 10), mine,
	}}
}

// rounds is more than an attempt needs unless epochs begin one after another.
const rounds = 6

// reserve asks, and asks again where it got no answer: then "mine" tells it whether the first question had arrived.
func (s *Store) reserve(ctx context.Context, deadline time.Time, a *attempt) error {
	written := false
	var last error
	for range rounds {
		e := s.epochs[a.bucket].Load()
		if e == nil {
			return refuse(&dialError{errors.New("the bucket's server was never reached")}, written)
		}
		if e.refuses(a.token.IssuedAt, a.now) {
			return ledger.ErrFenced
		}
		a.epoch = e.text
		said, err := s.askReserve(ctx, deadline, a, written)
		switch {
		case err == nil && said == saysEpoch:
			if err := s.renewBefore(ctx, deadline, a.bucket); err != nil {
				// It wrote an epoch at most.
				return refuse(&dialError{explain(err)}, written)
			}
		case err == nil:
			return answers[said]
		case outcomeOf(err) != unclear:
			if isOver(ctx, deadline) || !errors.Is(err, context.DeadlineExceeded) {
				return refuse(err, written)
			}
		case written || isOver(ctx, deadline):
			return unknown(err)
		default:
			written, a.mine = true, true
		}
		last = err
	}
	if last == nil {
		last = errors.New("its epoch changes all the time")
	}
	return refuse(&dialError{last}, written)
}

var answers = map[byte]error{saysGranted: nil, saysReserved: ledger.ErrReserved, saysConsumed: ledger.ErrConsumed}

// askReserve asks once. What is asked first leaves a third of the time to ask again.
func (s *Store) askReserve(ctx context.Context, deadline time.Time, a *attempt, again bool) (byte, error) {
	if !again {
		deadline = deadline.Add(-time.Until(deadline) / 3)
	}
	var said byte
	var err error
	switch {
	case s.replicas > 0:
		said, err = s.askAndWait(ctx, deadline, a)
	case a.mine:
		said, err = s.reserving[a.bucket].ask(ctx, a.question(deadline))
	default:
		said, err = s.claiming[a.bucket].ask(ctx, a.claim(s, deadline))
		if err == nil && (said == saysClock || said == saysLook) {
			said, err = s.reserving[a.bucket].ask(ctx, a.question(deadline))
		}
	}
	if _, known := answers[said]; err == nil && !known && said != saysEpoch {
		err = errNoAnswer
	}
	return said, err
}

// Commit implements ledger.Store.
func (s *Store) Commit(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	return s.settle(ctx, s.committing, k, o)
}

// Release implements ledger.Store.
func (s *Store) Release(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	return s.settle(ctx, s.releasing, k, o)
}

func (s *Store) settle(ctx context.Context, queues []queue, k ledger.Key, o ledger.Owner) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.calls.Done()
	bucket, owner := s.bucketOf(k), string(o[:])
	said, err := queues[bucket].ask(ctx, &question{
		key: s.recordKey(bucket, k), args: []string{owner, digits(max(0, ledger.Nanos(s.now())))}, echo: owner, deadline: s.deadline(ctx),
	})
	switch {
	case err != nil:
		return refuse(err, false)
	case said == saysDone:
		return nil
	case said == saysNotHeld:
		return ledger.ErrConsumed
	}
	return unknown(errNoAnswer)
}

// enter counts a call that Close waits for.
func (s *Store) enter() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return unavailable(errClosed)
	}
	s.calls.Add(1)
	return nil
}

// closeGrace is what Close leaves to calls that are on their way.
const closeGrace = time.Second

// Close implements ledger.Store.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.stop()
		cut := time.AfterFunc(closeGrace, s.links.shut)
		s.calls.Wait()
		cut.Stop()
		s.links.shut()
		s.dialer.close()
		if s.client != nil {
			s.client.Close()
		}
	})
	s.watch.Wait()
	return nil
}

func (s *Store) bucketOf(k ledger.Key) int { return int(k[0]) * s.buckets / 256 }

const hexDigits = "0123456789abcdef"

// inBucket begins a bucket's keys. In a cluster the part in braces alone decides about the slot.
func (s *Store) inBucket(b int) string {
	if s.buckets == 1 {
		return s.prefix + ":"
	}
	return s.prefix + ":{" + hexDigits[b:b+1] + "}:"
}

func (s *Store) epochKey(b int) string { return s.inBucket(b) + "epoch" }

func (s *Store) recordKey(b int, k ledger.Key) string {
	bucket := s.inBucket(b)
	key := append(make([]byte, 0, len(bucket)+base64.RawURLEncoding.EncodedLen(len(k))), bucket...)
	return string(base64.RawURLEncoding.AppendEncode(key, k[:]))
}

// digits is n, which is not negative, so that texts compare as their numbers do.
func digits(n int64) string { return string(appendDigits(make([]byte, 0, untilSize), n)) }

func appendDigits(b []byte, n int64) []byte {
	var text [untilSize]byte
	for i := range text {
		text[untilSize-1-i] = byte('0' + n%10)
		n /= 10
	}
	return append(b, text[:]...)
}
