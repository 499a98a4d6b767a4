//go:build unix

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/postgres"
)

var claims atomic.Int64

// fresh is a claim for a key that nobody else asks for, issued now.
func fresh() ledger.Claim {
	now := time.Now()
	return ledger.Claim{
		Key: numbered(uint64(claims.Add(1))), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(5 * time.Minute),
	}
}

func other(c ledger.Claim) ledger.Claim {
	c.Owner = ledger.NewOwner()
	return c
}

// again reserves until the store has found its server, and returns its answer.
func again(t *testing.T, s ledger.Store, c ledger.Claim) error {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := s.Reserve(t.Context(), other(c))
		if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrUnknown) {
			return err
		}
		if time.Now().After(deadline) {
			t.Fatalf("the store does not find its server again: %v", err)
		}
	}
}

// granted reserves a fresh key, which must work once the store has found its server.
func granted(t *testing.T, s ledger.Store) ledger.Claim {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c := fresh()
		err := s.Reserve(t.Context(), c)
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("reserve: %v", err)
		}
	}
}

func want(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// begun opens a store whose fence is behind it.
func begun(t *testing.T, url, schema string) *postgres.Store {
	t.Helper()
	s := open(t, postgres.Config{URL: url, Schema: schema, Remember: time.Hour, Timeout: time.Second})
	time.Sleep(time.Millisecond)
	return s
}

func fence(t *testing.T, s ledger.Store) time.Time {
	t.Helper()
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats.Fence
}

func TestServerThatCrashesForgetsNothing(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	s := begun(t, p.URL, "crash")
	before := fence(t, s)
	var mu sync.Mutex
	var held []ledger.Claim // guarded by mu
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := fresh()
				switch err := s.Reserve(context.Background(), c); {
				case err == nil:
					mu.Lock()
					held = append(held, c)
					mu.Unlock()
				case !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrUnknown):
					t.Errorf("reserve: %v", err)
				}
			}
		})
	}
	// more waits until some were granted.
	more := func() {
		mu.Lock()
		enough := len(held) + 50
		mu.Unlock()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			mu.Lock()
			n := len(held)
			mu.Unlock()
			if n >= enough {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing is granted any more")
			}
		}
	}
	for range 3 {
		more()
		p.Restart()
	}
	more()
	close(stop)
	wg.Wait()
	for _, c := range held {
		if err := again(t, s, c); !errors.Is(err, ledger.ErrReserved) {
			t.Fatalf("reserve what was granted: got %v, want ErrReserved", err)
		}
	}
	if after := fence(t, s); !after.Equal(before) {
		t.Errorf("a restart has moved the fence from %s to %s", before, after)
	}
}

func TestConnectionsThatEndedWhileIdleCostNothing(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	s := begun(t, p.URL, "idle")
	granted(t, s)
	p.Restart()
	want(t, "reserve after a restart", s.Reserve(t.Context(), fresh()), nil)
}

func TestServerThatHangsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	s := begun(t, p.URL, "hang")
	granted(t, s)
	p.Stop()
	for range 20 {
		c := fresh()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := s.Reserve(ctx, c)
		cancel()
		if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrUnknown) {
			t.Errorf("reserve: got %v, want ErrUnavailable or ErrUnknown", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the deadline was overrun: %s", took)
		}
	}
	p.Cont()
	c := granted(t, s)
	want(t, "reserve it again", s.Reserve(t.Context(), other(c)), ledger.ErrReserved)
}

func TestPromotedStandbyIsFenced(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	// The primary first, or the standby could not begin.
	standby := p.Standby()
	url := strings.Replace(p.URL, p.Addr, p.Addr+","+standby.Addr, 1)
	s := begun(t, url, "failover")
	before := fence(t, s)
	kept := granted(t, s)
	follow(t, standby, p)
	standby.Exec("ALTER SYSTEM SET primary_conninfo = ''")
	standby.Exec("SELECT pg_reload_conf()")
	for standby.Query("SELECT count(*) FROM pg_stat_wal_receiver") != "0" {
		time.Sleep(10 * time.Millisecond)
	}
	lost := granted(t, s)
	lost.IssuedAt = time.Now() // as late as can be

	p.Kill()
	standby.Promote()
	want(t, "reserve what was lost", again(t, s, lost), ledger.ErrFenced)
	want(t, "reserve what was replicated", again(t, s, kept), ledger.ErrReserved)
	want(t, "reserve a token without a time of issue", again(t, s, ledger.Claim{Key: numbered(1 << 40), Until: lost.Until}),
		ledger.ErrFenced)
	if after := fence(t, s); !after.After(before) {
		t.Errorf("fence: got %s, want it after %s", after, before)
	}
	later := granted(t, s)
	// Another process finds the fence raised, and leaves it where it is.
	second := begun(t, url, "failover")
	if got := fence(t, second); !got.Equal(fence(t, s)) {
		t.Errorf("a second process moves the fence to %s", got)
	}
	want(t, "reserve by another process", second.Reserve(t.Context(), other(later)), ledger.ErrReserved)
}

// follow waits until the standby has all that the primary wrote.
func follow(t *testing.T, standby, primary *testkit.Postgres) {
	t.Helper()
	written := primary.Query("SELECT pg_current_wal_lsn()")
	for standby.Query("SELECT pg_last_wal_replay_lsn() >= '"+written+"'") != "t" {
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStandbyIsRefused(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	standby := p.Standby()
	_, err := postgres.Open(t.Context(), postgres.Config{URL: standby.URL})
	if err == nil || !strings.Contains(err.Error(), "takes no writes") {
		t.Errorf("open a standby: got %v, want that it takes no writes", err)
	}
	url := strings.Replace(p.URL, p.Addr, standby.Addr+","+p.Addr, 1)
	granted(t, begun(t, url, "primary"))
}

func TestRestoredBackupIsFenced(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	s := begun(t, p.URL, "restored")
	before := fence(t, s)
	kept := granted(t, s)
	dump := p.Dump("restored")
	lost := granted(t, s)

	t.Run("into another server", func(t *testing.T) {
		p := testkit.StartOtherPostgres(t)
		p.Exec(dump)
		s := begun(t, p.URL, "restored")
		want(t, "reserve what was lost", s.Reserve(t.Context(), other(lost)), ledger.ErrFenced)
		want(t, "reserve what was kept", s.Reserve(t.Context(), other(kept)), ledger.ErrReserved)
		granted(t, s)
	})
	t.Run("into the same server", func(t *testing.T) {
		p.Exec(`DROP SCHEMA restored CASCADE`)
		p.Exec(dump)
		s := begun(t, p.URL, "restored")
		want(t, "reserve what was lost", s.Reserve(t.Context(), other(lost)), ledger.ErrFenced)
		if after := fence(t, s); !after.After(before) {
			t.Errorf("fence: got %s, want it after %s", after, before)
		}
	})
}

func TestDiskThatIsPutBackIsFenced(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	s := begun(t, p.URL, "disk")
	granted(t, s)
	copied := p.Snapshot()
	lost := granted(t, s)
	for range 100 {
		granted(t, s)
	}
	// Connections are where this process looks how far the server has written.
	p.Restart()
	granted(t, s)
	p.PutBack(copied)
	want(t, "reserve what was lost", again(t, s, lost), ledger.ErrFenced)
	granted(t, s)
}

func TestServersDefaultsAreOverruled(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t, "default_transaction_isolation=serializable")
	for _, row := range []struct{ set, want string }{
		{"off", "on"}, {"local", "on"}, {"remote_write", "on"}, {"on", "on"}, {"remote_apply", "remote_apply"},
	} {
		t.Run(row.set, func(t *testing.T) {
			p.Exec("ALTER ROLE stepward SET synchronous_commit = " + row.set)
			s := open(t, postgres.Config{URL: p.URL, Schema: newSchema(), MaxConns: 1})
			time.Sleep(time.Millisecond)
			c := granted(t, s)
			want(t, "commit", s.Commit(t.Context(), c.Key, c.Owner), nil) // This one is not flushed.
			if got, err := s.Setting(t.Context(), "synchronous_commit"); got != row.want || err != nil {
				t.Errorf("synchronous_commit: got %s, %v, want %s", got, err, row.want)
			}
			if got, err := s.Setting(t.Context(), "transaction_isolation"); got != "read committed" || err != nil {
				t.Errorf("transaction_isolation: got %s, %v, want read committed", got, err)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	authority := testkit.NewAuthority(t)
	cert, key := authority.Issue(t, "database")
	p.WriteFile("server.crt", cert)
	p.WriteFile("server.key", key)
	p.Exec("ALTER SYSTEM SET ssl = on")
	p.Restart()
	url := strings.Replace(p.URL, "sslmode=disable", "sslmode=verify-full&sslrootcert=", 1)
	granted(t, begun(t, url+file(t, authority.PEM()), "tls"))
	_, err := postgres.Open(t.Context(), postgres.Config{URL: url + file(t, testkit.NewAuthority(t).PEM())})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("open with another authority: got %v, want that the certificate is not good", err)
	}
}

func TestLostAnswerIsReadBack(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	wire := ledgertest.NewWire(t, "tcp", p.Addr)
	s := open(t, postgres.Config{
		URL: strings.Replace(p.URL, p.Addr, wire.Address(), 1), Schema: "lost", Timeout: 3 * time.Second,
	})
	time.Sleep(time.Millisecond)
	// losing reserves while answers are lost, and has the wire work again before a third of the time is left.
	losing := func(c ledger.Claim) error {
		granted(t, s) // A connection is there.
		wire.Fail(ledgertest.LostAnswers)
		defer time.AfterFunc(500*time.Millisecond, func() { wire.Fail(ledgertest.None) }).Stop()
		return s.Reserve(t.Context(), c)
	}
	c := fresh()
	want(t, "reserve", losing(c), nil)
	want(t, "reserve again by its owner", losing(c), ledger.ErrReserved)
	want(t, "reserve by another", losing(other(c)), ledger.ErrReserved)
	want(t, "commit", s.Commit(t.Context(), c.Key, c.Owner), nil)
	want(t, "reserve what was committed", losing(other(c)), ledger.ErrConsumed)
}

func TestKeyThatIsOverAndNotSweptIsGrantedOnce(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	clock := ledgertest.NewClock()
	var stores [2]*postgres.Store
	for i := range stores {
		stores[i] = open(t, postgres.Config{URL: p.URL, Schema: "over", Now: clock.Now, Timeout: 10 * time.Second})
	}
	key := numbered(1 << 42)
	for round := range 20 {
		claim := ledger.Claim{Key: key, IssuedAt: clock.Now(), Until: clock.Now().Add(time.Hour)}
		var won, lost atomic.Int64
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				switch err := stores[i%2].Reserve(t.Context(), other(claim)); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ledger.ErrReserved):
					lost.Add(1)
				default:
					t.Errorf("reserve: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 31 {
			t.Fatalf("round %d: got %d winners and %d losers, want 1 and 31", round, won.Load(), lost.Load())
		}
		clock.Add(time.Hour)
	}
}

func TestServiceThatHidesWhichServerItIs(t *testing.T) {
	t.Parallel()
	p := testkit.StartPostgres(t)
	p.Exec("CREATE ROLE managed LOGIN PASSWORD 'managed-secret'")
	p.Exec("CREATE SCHEMA hidden AUTHORIZATION managed")
	p.Exec("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
	p.Exec("REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn() FROM PUBLIC")
	var log bytes.Buffer
	s := open(t, postgres.Config{
		URL: as(t, p.URL, "managed", "managed-secret"), Schema: "hidden", MaxConns: 1,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	time.Sleep(time.Millisecond)
	granted(t, s)
	if !strings.Contains(log.String(), "does not say which server it is") || strings.Contains(log.String(), "secret") {
		t.Errorf("log: got %s", &log)
	}
}
