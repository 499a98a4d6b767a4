package ledgertest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// Remote is a store whose keys are kept by a server.
type Remote struct {
	// Server is the address of a server that works, for net.Dial: "unix" or "tcp".
	Network, Server string
	// Open makes a store that finds its server at address, which is host:port. Stores that one Remote opens share their keys.
	Open func(t *testing.T, address string, o ledger.Options) ledger.Store
}

// patience is longer than a store may take to answer or to find its server again.
const patience = 10 * time.Second

// RunFaults checks what a store promises of a server that it reaches over a bad network, and of several stores on one server.
// prepare is called for each test and names an empty place.
func RunFaults(t *testing.T, prepare func(t *testing.T) Remote) {
	for _, row := range []struct {
		name string
		test func(*faultBench)
	}{
		{"a connection that is refused: nothing is written, and the key is good afterwards", refused},
		{"a request that is lost grants nothing twice", lostRequest},
		{"an answer that is lost grants nothing twice", lostAnswer},
		{"a connection that is cut after the write grants nothing twice", cutAnswer},
		{"a slow server is not waited for", slowServer},
		{"racers over a wire that fails now and then", racersOverFaults},
		{"a commit that is lost changes no later reserve", lostCommit},
		{"a release that is lost leaves the key to at most one", lostRelease},
		{"two stores, one key", twoStores},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := prepare(t)
			w := NewWire(t, r.Network, r.Server)
			open := func(t *testing.T, o ledger.Options) ledger.Store { return r.Open(t, w.Address(), o) }
			b := newBench(t, open, uncounted)
			warm := b.claim(0) // scripts are loaded and statements prepared: the next request is the one that writes
			b.reserve("before the trouble", warm, nil)
			b.commit("before the trouble", warm, nil)
			row.test(&faultBench{bench: b, remote: r, wire: w})
		})
	}
}

type faultBench struct {
	*bench
	remote Remote
	wire   *Wire
}

// try reserves with the deadline that requests have.
func (f *faultBench) try(c ledger.Claim) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	return f.store.Reserve(ctx, c)
}

// undecided checks that the store said that it does not know, or that nothing was written.
func (f *faultBench) undecided(err error) {
	f.t.Helper()
	if !errors.Is(err, ledger.ErrUnknown) && !errors.Is(err, ledger.ErrUnavailable) {
		f.t.Errorf("reserve: got %v, want ErrUnknown or ErrUnavailable", err)
	}
}

// mend makes the wire work again and waits until the store has found its server.
func (f *faultBench) mend() {
	f.t.Helper()
	f.wire.Fail(None)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := f.try(f.claim(int(time.Now().UnixNano())))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("the store does not find its server again: %v", err)
		}
	}
}

// settled asks for the key in the name of others and reports how many got it, which must be at most one.
func (f *faultBench) settled(c ledger.Claim) int {
	f.t.Helper()
	granted := 0
	for range 3 {
		switch err := f.try(other(c)); {
		case err == nil:
			granted++
		case !errors.Is(err, ledger.ErrReserved) && !errors.Is(err, ledger.ErrConsumed):
			f.t.Errorf("reserve once the server is there: %v", err)
		}
	}
	if granted > 1 {
		f.t.Errorf("%d were granted one key", granted)
	}
	return granted
}

func refused(f *faultBench) {
	f.wire.Fail(Refused)
	c := f.claim(1)
	f.undecided(f.try(c))
	f.mend()
	if f.settled(c) != 1 {
		f.t.Error("a key that could not be asked for is not good afterwards")
	}
}

func lostRequest(f *faultBench) {
	f.wire.Fail(LostRequests)
	c := f.claim(1)
	began := time.Now()
	f.undecided(f.try(c))
	if took := time.Since(began); took > patience/2 {
		f.t.Errorf("the deadline was overrun: %s", took)
	}
	f.mend()
	f.settled(c)
}

func lostAnswer(f *faultBench) { failsBehind(f, LostAnswers) }

func cutAnswer(f *faultBench) { failsBehind(f, CutAnswers) }

// failsBehind is a fault behind the write: it must not be called unwritten, and nobody else may get the key.
func failsBehind(f *faultBench, fault Fault) {
	c := f.claim(1)
	f.wire.Fail(fault)
	err := f.try(c)
	if errors.Is(err, ledger.ErrUnavailable) {
		f.t.Errorf("reserve: got %v, and it was written", err)
	}
	f.undecided(err)
	f.mend()
	if f.settled(c) != 0 {
		f.t.Error("a key that was written is granted to another")
	}
}

func slowServer(f *faultBench) {
	c := f.claim(1)
	f.wire.Fail(Slow)
	began := time.Now()
	err := f.try(c)
	if took := time.Since(began); took > 2*SlowBy {
		f.t.Errorf("the deadline was overrun: %s", took)
	}
	f.undecided(err)
	time.Sleep(3 * SlowBy)
	f.mend()
	if f.settled(c) != 0 {
		f.t.Error("a key that was written is granted to another")
	}
}

// racersOverFaults has many ask for few keys while connections are cut: none is granted twice.
func racersOverFaults(f *faultBench) {
	claims := make([]ledger.Claim, 200)
	for i := range claims {
		claims[i] = f.claim(1 + i)
	}
	granted := make([]int, len(claims))
	lock := make(chan struct{}, 1)
	stop := make(chan struct{})
	trouble := make(chan struct{})
	go func() {
		defer close(trouble)
		for fault := Refused; ; fault = fault%CutAnswers + 1 {
			select {
			case <-stop:
				f.wire.Fail(None)
				return
			case <-time.After(20 * time.Millisecond):
				f.wire.Fail(fault)
			}
			time.Sleep(5 * time.Millisecond)
			f.wire.Fail(None)
		}
	}()
	race(16, func(int) {
		for i, c := range claims {
			if f.try(other(c)) == nil {
				lock <- struct{}{}
				granted[i]++
				<-lock
			}
		}
	})
	close(stop)
	<-trouble
	f.mend()
	for i, n := range granted {
		if n > 1 || n == 1 && f.settled(claims[i]) > 0 {
			f.t.Errorf("key %d was granted more than once", i)
		}
	}
}

func lostCommit(f *faultBench) {
	c := f.claim(1)
	f.reserve("it", c, nil)
	f.wire.Fail(LostAnswers)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = f.store.Commit(ctx, c.Key, c.Owner) // bookkeeping
	f.mend()
	if f.settled(c) != 0 {
		f.t.Error("a reserved key is granted to another")
	}
}

func lostRelease(f *faultBench) {
	c := f.claim(1)
	f.reserve("it", c, nil)
	f.wire.Fail(LostRequests)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := f.store.Release(ctx, c.Key, c.Owner); err == nil {
		f.t.Error("a release that was lost is said to be done")
	}
	f.mend()
	f.settled(c)
}

// twoStores is two processes as far as the server can tell.
func twoStores(f *faultBench) {
	second := f.remote.Open(f.t, directly(f), ledger.Options{Leeway: leeway, Remember: remember, Now: f.clock.Now})
	defer func() { _ = second.Close() }()
	stores := []ledger.Store{f.store, second}
	for n := range 50 {
		c := f.claim(1 + n)
		won := make(chan int, 64)
		race(64, func(racer int) {
			mine := other(c)
			s := stores[racer%2]
			if s.Reserve(context.Background(), mine) == nil {
				won <- racer
				f.check("commit by the winner", s.Commit(context.Background(), mine.Key, mine.Owner), nil)
			}
		})
		if len(won) != 1 {
			f.t.Fatalf("round %d: %d winners, want 1", n, len(won))
		}
	}
}

// directly is the server's address for a store that needs host:port.
func directly(f *faultBench) string {
	if f.remote.Network == "tcp" {
		if _, _, err := net.SplitHostPort(f.remote.Server); err == nil {
			return f.remote.Server
		}
	}
	return f.wire.Address()
}
