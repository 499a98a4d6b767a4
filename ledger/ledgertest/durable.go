package ledgertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// Durable is a store that outlives its process and whose writes can be made to fail.
type Durable struct {
	// Open opens the same place each time. The first time it is empty, and its memory begins at o.Now().
	Open func(t *testing.T, o ledger.Options) ledger.Store
	// Fail makes every later write of the store that was opened last fail: before anything was written, or after all of it was.
	Fail func(written bool)
}

// RunDurable checks what a durable store promises besides Run: over a restart, and where it cannot write. prepare is called
// for each test.
func RunDurable(t *testing.T, prepare func(t *testing.T) Durable) {
	for _, row := range []struct {
		name string
		test func(*durableBench)
	}{
		{"what was granted is remembered over a restart", rememberedOverRestart},
		{"a restart does not move the fence", fenceOverRestart},
		{"a reserve that fails before the write grants nothing", failsBefore},
		{"a reserve that fails after the write is unknown and stays spent", failsAfter},
		{"a commit that fails changes no later reserve", commitFails},
		{"a release that fails leaves the key to at most one", releaseFails},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := prepare(t)
			row.test(&durableBench{newBench(t, d.Open, counted), d})
		})
	}
}

type durableBench struct {
	*bench
	durable Durable
}

// restart opens the place again. Close may report the writes that failed.
func (d *durableBench) restart() {
	d.t.Helper()
	_ = d.store.Close() // A store that could not write says so.
	d.store = d.durable.Open(d.t, ledger.Options{Capacity: capacity, Leeway: leeway, Remember: remember, Now: d.clock.Now})
}

func rememberedOverRestart(d *durableBench) {
	reserved, committed, released, long := d.claim(1), d.claim(2), d.claim(3), d.claim(4)
	long.Until = long.Until.Add(time.Hour)
	for _, c := range []ledger.Claim{reserved, committed, released, long} {
		d.reserve("it", c, nil)
	}
	d.commit("two", committed, nil)
	d.release("three", released, nil)
	d.restart()
	d.entries(3)
	d.reserve("what was reserved", other(reserved), ledger.ErrReserved)
	d.reserve("what was committed", other(committed), ledger.ErrConsumed)
	d.reserve("what was released", other(released), nil)
	d.release("by another", other(reserved), ledger.ErrConsumed)
	d.commit("by the owner of before", reserved, nil)
	d.clock.Add(5 * time.Minute)
	d.restart()
	d.reserve("what is remembered longer", other(long), ledger.ErrReserved)
	d.entries(1)
}

func fenceOverRestart(d *durableBench) {
	d.restart()
	c := d.claim(1)
	c.IssuedAt = d.began.Add(leeway - 1)
	d.reserve("a token from before the fence", c, ledger.ErrFenced)
	c.IssuedAt = d.began.Add(leeway)
	d.reserve("a token from before the restart", c, nil)
}

func failsBefore(d *durableBench) {
	d.durable.Fail(false)
	c := d.claim(1)
	failed := d.store.Reserve(context.Background(), c)
	if !errors.Is(failed, ledger.ErrUnavailable) && !errors.Is(failed, ledger.ErrUnknown) {
		d.t.Errorf("reserve: got %v, want ErrUnavailable or ErrUnknown", failed)
	}
	d.restart()
	d.reserve("after a restart", other(c), nil)
}

func failsAfter(d *durableBench) {
	d.durable.Fail(true)
	c := d.claim(1)
	// ErrUnavailable would promise that nothing was written.
	if err := d.store.Reserve(context.Background(), c); !errors.Is(err, ledger.ErrUnknown) || errors.Is(err, ledger.ErrUnavailable) {
		d.t.Errorf("reserve: got %v, want ErrUnknown alone", err)
	}
	d.restart()
	d.reserve("after a restart", other(c), ledger.ErrReserved)
}

func commitFails(d *durableBench) {
	c := d.claim(1)
	d.reserve("it", c, nil)
	d.durable.Fail(false)
	_ = d.store.Commit(context.Background(), c.Key, c.Owner) // It may not know yet.
	d.restart()
	d.reserve("after a restart", other(c), ledger.ErrReserved)
}

func releaseFails(d *durableBench) {
	c := d.claim(1)
	d.reserve("it", c, nil)
	d.durable.Fail(false)
	_ = d.store.Release(context.Background(), c.Key, c.Owner) // It may not know yet.
	d.restart()
	if first, second := d.store.Reserve(context.Background(), other(c)), d.store.Reserve(context.Background(), other(c)); second == nil {
		d.t.Errorf("reserve twice after a restart: got %v and nil, want at most one", first)
	}
}
