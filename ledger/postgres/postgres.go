// Package postgres is a ledger.Store in PostgreSQL, for a fleet that must not forget. It is tested with PostgreSQL 15 and
// uses nothing newer than 12.
//
// What is granted was flushed to the server's disk first, and to its synchronous standbys where it has any. A server that is
// another than before (a standby was promoted, a backup restored) may have forgotten what was granted last: each connection
// is compared with what the database says of itself before it is used, and a difference refuses all that was issued before.
//
// Two primaries at once, of which none knows of the other, are two ledgers: fencing the old one off is the failover's task.
//
// A pooler between (PgBouncer) must hand out whole sessions: pool_mode = session. With another mode all claims are refused.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/stepward/stepward/ledger"
)

// Config configures a Store. Of it only URL must be set.
type Config struct {
	// URL is what ParseURL accepts.
	URL string
	// PasswordFile holds the password, which replaces one in URL. It is read anew for each connection.
	PasswordFile string
	Schema       string // "stepward" where it is empty: see Migration
	// Timeout is for one operation, unless its context ends before; 250 ms where it is zero. The server ends a statement
	// after 5 s in any case.
	Timeout  time.Duration
	MaxConns int           // at most so many connections; DefaultMaxConns where it is zero
	Leeway   time.Duration // how far issuers' clocks may be ahead: the one that verification uses
	// Remember is the longest time for which claims without IssuedAt are remembered. For so long after the ledger began they
	// are refused with ledger.ErrFenced; zero refuses them always.
	Remember time.Duration
	Now      func() time.Time // nil is time.Now
	Log      *slog.Logger     // nil discards
}

// The defaults of Config.
const (
	DefaultSchema   = "stepward"
	DefaultTimeout  = 250 * time.Millisecond
	DefaultMaxConns = 16
)

// Store is a ledger.Store whose keys are rows. Several processes may share them.
type Store struct {
	pool    *pgxpool.Pool
	sql     statements
	log     *slog.Logger
	now     func() time.Time
	timeout time.Duration
	leeway  time.Duration
	keep    time.Duration // Config.Remember

	closed  atomic.Bool
	stop    context.CancelFunc
	stopped chan struct{} // closed when the sweeper has ended

	skew     atomic.Int64 // the server's clock is so many nanoseconds ahead
	seen     history
	troubles limiter // of what the sweeper has to say
	clocks   limiter
	poolers  limiter
}

var errClosed = errors.New("it was closed")

// Open connects, makes the tables where they are missing, and starts one goroutine, which Close ends. It waits for other
// processes that make the tables, as long as ctx lets it.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	pooled, err := c.parse()
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	s := &Store{
		sql: newStatements(c.Schema), log: c.Log, now: c.Now, timeout: c.Timeout, leeway: c.Leeway, keep: c.Remember,
		stopped: make(chan struct{}),
	}
	if err := s.migrate(ctx, pooled); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	pooled.AfterConnect = s.check
	pooled.PrepareConn = func(_ context.Context, c *pgx.Conn) (bool, error) { return alive(c.PgConn().Conn()), nil }
	// It would ask the server: alive looks without a round trip.
	pooled.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	if s.pool, err = pgxpool.NewWithConfig(ctx, pooled); err != nil {
		return nil, fmt.Errorf("ledger: %s", explain(err))
	}
	if err := s.pool.Ping(ctx); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("ledger: %w", refused(err))
	}
	sweeping, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.sweep(sweeping)
	return s, nil
}

func (c *Config) complete() error {
	if c.Schema == "" {
		c.Schema = DefaultSchema
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Timeout < 0:
		return fmt.Errorf("timeout %s: write a positive time", c.Timeout)
	case c.MaxConns < 0 || c.MaxConns > math.MaxInt32:
		return fmt.Errorf("%d connections at most: write a positive number", c.MaxConns)
	}
	return checkSchema(c.Schema)
}

// Reserve implements ledger.Store.
func (s *Store) Reserve(ctx context.Context, c ledger.Claim) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	nonce := rand.Int64() //nolint:gosec // It only tells attempts of one owner apart.
	a := attempt{Claim: c, now: ledger.Nanos(s.now()), until: ledger.Nanos(c.Until), nonce: nonce}
	if a.until <= a.now {
		return ledger.ErrFenced
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.claim(ctx, a)
	if !errors.Is(err, errUnclear) {
		return err
	}
	return s.readBack(ctx, a, err)
}

// attempt is one call of Reserve.
type attempt struct {
	ledger.Claim
	now, until int64
	nonce      int64 // the owner alone could have reserved the key before
}

// claim asks once, and leaves a third of the time to look what became of it.
func (s *Store) claim(ctx context.Context, a attempt) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*2/3)
		defer cancel()
	}
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: no connection: %s", ledger.ErrUnavailable, explain(err))
	}
	defer giveBack(c)
	done, err := c.Exec(ctx, reserveName, a.arguments(c)...)
	switch {
	case err != nil:
		return failure(err)
	case done.RowsAffected() == 1:
		return nil
	}
	return s.refusal(ctx, c, a)
}

// arguments are those of the statements reserve and replace.
func (a attempt) arguments(c *pgxpool.Conn) []any {
	return []any{a.Key[:], a.Owner[:], a.nonce, a.until, a.now, a.issued(), backendOf(c.Conn())}
}

func (a attempt) issued() *int64 {
	if a.IssuedAt.IsZero() {
		return nil
	}
	n := ledger.Nanos(a.IssuedAt)
	return &n
}

// refusal looks why a claim wrote nothing.
func (s *Store) refusal(ctx context.Context, c *pgxpool.Conn, a attempt) error {
	var why outcome
	err := c.QueryRow(ctx, whyName, a.Key[:], a.until, a.now, a.issued(), backendOf(c.Conn())).Scan(&why)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return failure(err)
	case err != nil:
		return fmt.Errorf("%w: %s", ledger.ErrUnavailable, explain(err)) // However it ended, it was to write nothing.
	}
	switch why {
	case consumed:
		return ledger.ErrConsumed
	case fenced:
		return ledger.ErrFenced
	case over:
		return s.replace(ctx, c, a)
	case strange:
		s.strange(ctx, c)
		return fmt.Errorf("%w: a pooler between gave another session: set pool_mode = session", ledger.ErrUnavailable)
	case granted, reserved, absent:
	}
	return ledger.ErrReserved // Where it is absent, who held it has just released it.
}

// replace claims a key whose row is over.
func (s *Store) replace(ctx context.Context, c *pgxpool.Conn, a attempt) error {
	done, err := c.Exec(ctx, replaceName, a.arguments(c)...)
	switch {
	case err != nil:
		return failure(err)
	case done.RowsAffected() == 0:
		return ledger.ErrReserved
	}
	return nil
}

// giveBack does not leave a broken connection to the pool, which would count it until pgx has told the server: with one that
// hangs that takes 15 s, and the next operations would find no room.
func giveBack(c *pgxpool.Conn) {
	if !c.Conn().IsClosed() {
		c.Release()
		return
	}
	hangUp(c.Hijack().PgConn().Conn())
}

// strange ends a connection that reaches more than one session, of which one alone was looked at.
func (s *Store) strange(ctx context.Context, c *pgxpool.Conn) {
	_ = c.Conn().Close(ctx) // giveBack does not keep it in any case.
	if s.poolers.allows() {
		s.log.LogAttrs(ctx, slog.LevelError, "ledger: a pooler hands out transactions, and a ledger needs whole sessions: "+
			"set pool_mode = session")
	}
}

// readBack looks at the key through another connection. A key that is absent may yet be written: the server may not have
// come to it.
func (s *Store) readBack(ctx context.Context, a attempt, cause error) error {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnknown, cause)
	}
	defer giveBack(c)
	held, err := s.look(ctx, c, a)
	switch {
	case err != nil || held == absent:
		return fmt.Errorf("%w: %w", ledger.ErrUnknown, cause)
	case held == granted:
		return nil
	case held == consumed:
		return ledger.ErrConsumed
	}
	return ledger.ErrReserved
}

// look is granted where this very attempt holds the key.
func (s *Store) look(ctx context.Context, c *pgxpool.Conn, a attempt) (outcome, error) {
	got := absent
	err := c.QueryRow(ctx, lookName, a.Key[:], a.Owner[:], a.nonce, a.now).Scan(&got)
	if errors.Is(err, pgx.ErrNoRows) {
		return absent, nil
	}
	return got, err
}

// Commit implements ledger.Store. It does not wait for the disk: a crash that loses it leaves the key reserved.
func (s *Store) Commit(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	return s.settle(ctx, commitName, k, o)
}

// Release implements ledger.Store. It does not wait for the disk: a crash that loses it leaves the key reserved.
func (s *Store) Release(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	return s.settle(ctx, releaseName, k, o)
}

func (s *Store) settle(ctx context.Context, statement string, k ledger.Key, o ledger.Owner) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: no connection: %s", ledger.ErrUnavailable, explain(err))
	}
	defer giveBack(c)
	done, err := c.Exec(ctx, statement, k[:], o[:], ledger.Nanos(s.now()))
	switch {
	case errors.Is(failure(err), errUnclear):
		return fmt.Errorf("%w: %w", ledger.ErrUnknown, failure(err))
	case err != nil:
		return failure(err)
	case done.RowsAffected() == 0:
		return ledger.ErrConsumed
	}
	return nil
}

// Stats implements ledger.Store. Entries are counted up to 10,000; beyond, they are PostgreSQL's estimate, in which keys are
// that are over and not yet swept.
func (s *Store) Stats(ctx context.Context) (ledger.Stats, error) {
	if err := s.usable(ctx); err != nil {
		return ledger.Stats{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var entries, before int64
	if err := s.pool.QueryRow(ctx, s.sql.stats, ledger.Nanos(s.now())).Scan(&entries, &before); err != nil {
		return ledger.Stats{}, fmt.Errorf("%w: %s", ledger.ErrUnavailable, explain(err))
	}
	return ledger.Stats{Entries: entries, Fence: time.Unix(0, before)}, nil
}

// Skew is how far the server's clock was ahead of this machine's when it was last compared: at each new connection.
func (s *Store) Skew() time.Duration { return time.Duration(s.skew.Load()) }

// Close implements ledger.Store. It waits for operations that run.
func (s *Store) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		s.stop()
	}
	<-s.stopped
	s.pool.Close()
	return nil
}

func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	if s.closed.Load() {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, errClosed)
	}
	return nil
}

// limiter lets a message through once a minute.
type limiter struct{ next atomic.Int64 }

func (l *limiter) allows() bool {
	now := time.Now().UnixNano()
	next := l.next.Load()
	return now >= next && l.next.CompareAndSwap(next, now+int64(time.Minute))
}
