//go:build unix

package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/redis"
)

// patience is longer than anything takes that a test waits for.
const patience = 30 * time.Second

// rig is a store whose clock the test moves.
type rig struct {
	t     *testing.T
	store *redis.Store
	clock *ledgertest.Clock
	next  int
}

// newRig opens a store whose fence is a minute behind.
func newRig(t *testing.T, c redis.Config) *rig {
	t.Helper()
	r := &rig{t: t, clock: ledgertest.NewClock()}
	c.Leeway, c.Remember, c.Now = 10*time.Second, time.Hour, r.clock.Now
	r.store = open(t, c)
	r.clock.Add(time.Minute)
	return r
}

// claim is a fresh one for a key of its own.
func (r *rig) claim() ledger.Claim {
	r.next++
	return ledger.Claim{
		Key: ledger.KeyOf(ledger.KindJTI, "test", r.t.Name(), fmt.Sprint(r.next)), Owner: ledger.NewOwner(),
		IssuedAt: r.clock.Now(), Until: r.clock.Now().Add(5 * time.Minute),
	}
}

func (r *rig) reserve(c ledger.Claim) error {
	c.Owner = ledger.NewOwner()
	return r.store.Reserve(context.Background(), c)
}

// spend grants some, enough for every bucket of a cluster.
func (r *rig) spend() []ledger.Claim {
	r.t.Helper()
	claims := make([]ledger.Claim, 64)
	for i := range claims {
		claims[i] = r.claim()
		if err := r.store.Reserve(context.Background(), claims[i]); err != nil {
			r.t.Fatalf("reserve: %v", err)
		}
	}
	return claims
}

// decided asks until the store knows, and fails the test if it does not in time.
func (r *rig) decided(c ledger.Claim) error {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := r.reserve(c)
		if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrUnknown) {
			return err
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("reserve: still %v", err)
		}
	}
}

// check that each of the claims is refused so.
func (r *rig) check(what string, claims []ledger.Claim, want error) {
	r.t.Helper()
	for _, c := range claims {
		if err := r.decided(c); !errors.Is(err, want) {
			r.t.Errorf("%s: got %v, want %v", what, err, want)
			return
		}
	}
}

// recovers checks that tokens from after the fence are granted, once.
func (r *rig) recovers() {
	r.t.Helper()
	r.clock.Add(time.Minute)
	c := r.claim()
	if err := r.decided(c); err != nil && !errors.Is(err, ledger.ErrReserved) { // an attempt before may have been the one
		r.t.Errorf("a token from after the fence: %v", err)
	}
	if err := r.decided(c); !errors.Is(err, ledger.ErrReserved) {
		r.t.Errorf("the same again: got %v, want ErrReserved", err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

// scene is a server that is reached over a wire, and a replica of it that lags behind.
type scene struct {
	t       *testing.T
	wire    *ledgertest.Wire
	server  *testkit.Redis // the one that the wire leads to
	replica *testkit.Redis
}

// Whatever makes a server forget, what was spent before is never granted again.
func TestAServerThatMayHaveForgotten(t *testing.T) {
	t.Parallel()
	for what, happens := range map[string]func(*scene){
		"restarts with its data": func(s *scene) { s.server.Restart(true) },
		"restarts empty":         func(s *scene) { s.server.Restart(false) },
		"is emptied":             func(s *scene) { s.server.Do("FLUSHALL") },
		"loses the epoch":        func(s *scene) { s.server.Do("DEL", "stepward:epoch") },
		"is replaced by another": func(s *scene) {
			s.server = testkit.StartRedis(s.t)
			s.wire.Lead("tcp", s.server.Addr)
		},
		"is replaced by a replica that lags behind": func(s *scene) {
			s.server.Kill()
			s.replica.Cont()
			s.replica.Do("REPLICAOF", "NO", "ONE")
			s.server = s.replica
			s.wire.Lead("tcp", s.server.Addr)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := &scene{t: t, server: testkit.StartRedis(t)}
			s.wire = ledgertest.NewWire(t, "tcp", s.server.Addr)
			r := newRig(t, redis.Config{URL: "redis://" + s.wire.Address(), Timeout: time.Second})
			s.replica = follow(t, s.server)
			cutOff(s.server, s.replica)
			spent := r.spend()
			happens(s)
			r.check("what was spent before", spent, ledger.ErrFenced)
			r.recovers()
			r.check("what was spent before, later", spent, ledger.ErrFenced)
			if n := strings.Count(s.server.Do("KEYS", "*"), "epoch"); n != 1 {
				t.Errorf("got %d epochs, want 1", n)
			}
		})
	}
}

// follow starts a replica and waits until it has everything.
func follow(t *testing.T, master *testkit.Redis) *testkit.Redis {
	t.Helper()
	replica := testkit.StartRedis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica.Do("REPLICAOF", host, port)
	eventually(t, "the replica follows", func() bool { return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up") })
	return replica
}

// cutOff halts a replica and ends its connection, so that it misses what comes now.
func cutOff(master, replica *testkit.Redis) {
	replica.Stop()
	master.Do("CLIENT", "KILL", "TYPE", "replica")
}

// A replica that replaced its master and became its replica again has the run that it had, and so have its connections.
func TestAMasterThatWasAReplicaForAWhile(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second})
	spent := r.spend()
	before, err := r.store.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	server.Do("REPLICAOF", "127.0.0.1", "1") // nobody is there, so it keeps what it has
	server.Do("REPLICAOF", "NO", "ONE")
	r.clock.Add(time.Second)
	eventually(t, "the fence rises", func() bool {
		now, err := r.store.Stats(context.Background())
		return err == nil && now.Fence.After(before.Fence)
	})
	r.check("what was spent before", spent, ledger.ErrFenced)
	r.recovers()
}

// A server that hangs is not waited for, and when it goes on nothing has been forgotten.
func TestAServerThatHangs(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: 100 * time.Millisecond})
	spent := r.spend()
	server.Stop()
	for range 20 {
		began := time.Now()
		err := r.reserve(r.claim())
		if !errors.Is(err, ledger.ErrUnavailable) && !errors.Is(err, ledger.ErrUnknown) {
			t.Errorf("got %v, want ErrUnavailable or ErrUnknown", err)
		}
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Errorf("took %s of 100ms", took)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := r.store.Reserve(ctx, r.claim()); err == nil {
		t.Error("a server that hangs granted")
	}
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("took %s of the caller's 20ms", took)
	}
	server.Cont()
	r.check("what was spent before", spent, ledger.ErrReserved)
	r.recovers()
}

// Nothing can have been sent to a server that is not there.
func TestAServerThatIsGone(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	r := newRig(t, redis.Config{URL: "redis://" + server.Addr, Timeout: time.Second})
	server.Kill()
	eventually(t, "the store knows that nothing was sent", func() bool { return errors.Is(r.reserve(r.claim()), ledger.ErrUnavailable) })
	if _, err := r.store.Stats(context.Background()); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("stats: got %v, want ErrUnavailable", err)
	}
	if _, err := tryOpen(t, redis.Config{URL: "redis://:hunter2@" + server.Addr}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("open: got %v, want an error without the password", err)
	}
}

// An answer that is lost is asked for again, and the answer is about this very attempt: not about another by the same owner.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	wire := ledgertest.NewWire(t, "tcp", server.Addr)
	r := newRig(t, redis.Config{URL: "redis://" + wire.Address(), Timeout: 3 * time.Second})
	r.use() // the server knows the scripts: the next request is the one that writes
	for _, want := range []error{nil, ledger.ErrReserved} {
		c := r.claim()
		if want != nil {
			if err := r.store.Reserve(context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
		wire.Fail(ledgertest.LostAnswers)
		mended := time.AfterFunc(time.Second, func() { wire.Fail(ledgertest.None) })
		if err := r.store.Reserve(context.Background(), c); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		mended.Stop()
		wire.Fail(ledgertest.None)
		r.check("another", []ledger.Claim{c}, ledger.ErrReserved)
	}
}
