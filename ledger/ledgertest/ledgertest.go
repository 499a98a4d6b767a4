// Package ledgertest checks that a store keeps the contract of ledger.Store.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// Open makes an empty store whose memory begins at o.Now(). What it needs besides, it takes from t. The suite closes it.
type Open func(t *testing.T, o ledger.Options) ledger.Store

// Run checks every promise of ledger.Store on stores that open makes.
func Run(t *testing.T, open Open) {
	for _, row := range append(shared, bounded...) {
		t.Run(row.name, func(t *testing.T) { row.test(t, newBench(t, open, counted)) })
	}
}

// RunRemote is Run for stores that keep their keys in a server: they have no capacity of their own, and may go on counting
// keys that are over until the server drops them.
func RunRemote(t *testing.T, open Open) {
	for _, row := range shared {
		t.Run(row.name, func(t *testing.T) { row.test(t, newBench(t, open, uncounted)) })
	}
}

type row struct {
	name string
	test func(*testing.T, *bench)
}

var shared = []row{
	{"a key is reserved once", reservedOnce},
	{"only the owner commits", ownerCommits},
	{"only the owner releases, and only before it commits", ownerReleases},
	{"a key is remembered until Until and not longer", untilExactly},
	{"a claim that is over is refused", claimOver},
	{"a clock that is set back brings nothing back", clockSetBack},
	{"a clock that jumps ahead and back brings nothing back", clockJumps},
	{"what was issued before the store began is refused", fenced},
	{"an ended context writes nothing", endedContext},
	{"of many racers one wins", racers},
	{"of many racers for a key that is released again one holds it at a time", racersReleasing},
	{"a closed store is unavailable", closed},
}

// bounded need a capacity and an exact count.
var bounded = []row{
	{"a full store refuses and forgets nothing", full},
	{"at capacity, racers never get more than there is", racersForRoom},
	{"stats count live keys", stats},
}

// How a store counts its keys.
const (
	counted   = true
	uncounted = false
)

const (
	leeway   = 10 * time.Second
	remember = 24 * time.Hour
	capacity = 100
)

// bench is one store under test, whose fence is an hour behind.
type bench struct {
	t     *testing.T
	store ledger.Store
	clock *Clock
	began time.Time
	exact bool // Stats.Entries leaves out what is over
}

func newBench(t *testing.T, open Open, exact bool) *bench {
	clock := NewClock()
	began := clock.Now()
	s := open(t, ledger.Options{Capacity: capacity, Leeway: leeway, Remember: remember, Now: clock.Now})
	b := &bench{t: t, store: s, clock: clock, began: began, exact: exact}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	clock.Add(time.Hour)
	return b
}

// claim is one for the numbered key that has just been issued and is remembered for five minutes.
func (b *bench) claim(n int) ledger.Claim {
	return ledger.Claim{
		Key: ledger.KeyOf(ledger.KindJTI, "test", "issuer", fmt.Sprint(n)), Owner: ledger.NewOwner(),
		IssuedAt: b.clock.Now(), Until: b.clock.Now().Add(5 * time.Minute),
	}
}

func (b *bench) reserve(what string, c ledger.Claim, want error) {
	b.t.Helper()
	b.check("reserve "+what, b.store.Reserve(context.Background(), c), want)
}

func (b *bench) commit(what string, c ledger.Claim, want error) {
	b.t.Helper()
	b.check("commit "+what, b.store.Commit(context.Background(), c.Key, c.Owner), want)
}

func (b *bench) release(what string, c ledger.Claim, want error) {
	b.t.Helper()
	b.check("release "+what, b.store.Release(context.Background(), c.Key, c.Owner), want)
}

func (b *bench) check(what string, got, want error) {
	b.t.Helper()
	if !errors.Is(got, want) {
		b.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (b *bench) entries(want int64) {
	b.t.Helper()
	got, err := b.store.Stats(context.Background())
	if err != nil || b.exact && got.Entries != want {
		b.t.Errorf("stats: got %+v, %v, want %d entries", got, err, want)
	}
}

// other is c as another request would ask for it.
func other(c ledger.Claim) ledger.Claim {
	c.Owner = ledger.NewOwner()
	return c
}

func reservedOnce(_ *testing.T, b *bench) {
	c := b.claim(1)
	b.reserve("an absent key", c, nil)
	b.reserve("another absent key", b.claim(2), nil)
	b.reserve("again by its owner", c, ledger.ErrReserved)
	b.reserve("by another", other(c), ledger.ErrReserved)
	b.commit("by its owner", c, nil)
	b.reserve("a committed key by its owner", c, ledger.ErrConsumed)
	b.reserve("a committed key by another", other(c), ledger.ErrConsumed)
}

func ownerCommits(_ *testing.T, b *bench) {
	c := b.claim(1)
	b.commit("an absent key", c, ledger.ErrConsumed)
	b.reserve("it", c, nil)
	b.commit("by another", other(c), ledger.ErrConsumed)
	b.reserve("after another's commit", other(c), ledger.ErrReserved)
	b.commit("by its owner", c, nil)
	b.commit("again by its owner", c, nil)
	b.commit("a committed key by another", other(c), ledger.ErrConsumed)
}

func ownerReleases(_ *testing.T, b *bench) {
	c := b.claim(1)
	b.release("an absent key", c, ledger.ErrConsumed)
	b.reserve("it", c, nil)
	b.release("by another", other(c), ledger.ErrConsumed)
	b.reserve("after another's release", other(c), ledger.ErrReserved)
	b.release("by its owner", c, nil)
	b.release("again by its owner", c, ledger.ErrConsumed)
	b.commit("a released key", c, ledger.ErrConsumed)

	next := other(c)
	b.reserve("a released key", next, nil)
	b.release("by the owner before", c, ledger.ErrConsumed)
	b.commit("by the owner before", c, ledger.ErrConsumed)
	b.commit("by its owner", next, nil)
	b.release("a committed key by its owner", next, ledger.ErrConsumed)
	b.reserve("after that", other(c), ledger.ErrConsumed)
}

func untilExactly(_ *testing.T, b *bench) {
	reserved, committed := b.claim(1), b.claim(2)
	b.reserve("one", reserved, nil)
	b.reserve("two", committed, nil)
	b.commit("two", committed, nil)
	later := func(c ledger.Claim) ledger.Claim {
		c = other(c)
		c.Until = c.Until.Add(time.Minute)
		return c
	}
	b.clock.Add(5*time.Minute - 1)
	b.reserve("a nanosecond before Until", later(reserved), ledger.ErrReserved)
	b.reserve("a committed key a nanosecond before Until", later(committed), ledger.ErrConsumed)
	b.clock.Add(1)
	b.commit("at Until", reserved, ledger.ErrConsumed)
	b.release("at Until", reserved, ledger.ErrConsumed)
	b.reserve("at Until", later(reserved), nil)
	b.reserve("a committed key at Until", later(committed), nil)
	b.reserve("once more", later(reserved), ledger.ErrReserved)
	b.entries(2)

	forever := b.claim(3)
	forever.Until = time.Unix(1<<40, 0)
	b.reserve("a key until the year 36812", forever, nil)
	b.clock.Add(100 * 365 * 24 * time.Hour)
	again := b.claim(3)
	again.Until = forever.Until
	b.reserve("it a century later", again, ledger.ErrReserved)
}

func claimOver(_ *testing.T, b *bench) {
	c := b.claim(1)
	c.Until = b.clock.Now()
	b.reserve("a claim that ends now", c, ledger.ErrFenced)
	c.Until = time.Time{}
	b.reserve("a claim without Until", c, ledger.ErrFenced)
	b.entries(0)
}

func clockSetBack(_ *testing.T, b *bench) {
	c := b.claim(1)
	b.reserve("it", c, nil)
	b.clock.Add(time.Hour)
	b.entries(0) // Counting makes the store look at the time.
	b.clock.Add(-time.Hour)
	if err := b.store.Reserve(context.Background(), other(c)); err == nil {
		b.t.Errorf("reserve with the clock set back: got nil, want any refusal")
	}
	newer := b.claim(2)
	newer.Until = newer.Until.Add(time.Second)
	b.reserve("a key that cannot have been forgotten", newer, nil)
}

// clockJumps asks while the clock is ahead, so that the key's place may have been given to another.
func clockJumps(_ *testing.T, b *bench) {
	c := b.claim(1)
	b.reserve("it", c, nil)
	b.clock.Add(time.Hour)
	for n := range capacity {
		b.reserve("another while the clock is ahead", b.claim(1000+n), nil)
	}
	b.clock.Add(-time.Hour)
	if err := b.store.Reserve(context.Background(), other(c)); err == nil {
		b.t.Errorf("reserve when the clock is right again: got nil, want any refusal")
	}
	b.reserve("what was taken while the clock was ahead", other(b.claim(1000)), ledger.ErrReserved)
}

func fenced(_ *testing.T, b *bench) {
	c := b.claim(1)
	c.IssuedAt = b.began.Add(leeway - 1)
	b.reserve("a token from before the fence", c, ledger.ErrFenced)
	c.IssuedAt = time.Time{}
	b.reserve("a token without iat", c, ledger.ErrFenced)
	b.entries(0)
	c.IssuedAt = b.began.Add(leeway)
	b.reserve("a token from the fence on", c, nil)

	b.clock.Add(b.began.Add(leeway + remember).Sub(b.clock.Now()))
	late := b.claim(2)
	late.IssuedAt = b.began
	b.reserve("a long-lived token from before the fence", late, ledger.ErrFenced)
	late.IssuedAt = time.Time{}
	b.reserve("a token without iat once none can be remembered from before", late, nil)
}

func full(_ *testing.T, b *bench) {
	claims := make([]ledger.Claim, capacity)
	for i := range claims {
		claims[i] = b.claim(i)
		if i == 0 {
			claims[i].Until = b.clock.Now().Add(time.Minute)
		}
		b.reserve("below capacity", claims[i], nil)
	}
	b.entries(capacity)
	extra := b.claim(capacity)
	b.reserve("a key beyond capacity", extra, ledger.ErrFull)
	b.reserve("the same again", extra, ledger.ErrFull)
	for _, c := range claims {
		b.reserve("what is held", other(c), ledger.ErrReserved)
	}
	b.release("to make room", claims[1], nil)
	b.reserve("into the room", extra, nil)
	b.reserve("beyond it", other(claims[1]), ledger.ErrFull)

	b.clock.Add(time.Minute)
	b.reserve("when one has expired", claims[1], nil)
	b.reserve("when that is used", b.claim(capacity+1), ledger.ErrFull)
	b.entries(capacity)
}

func endedContext(_ *testing.T, b *bench) {
	c := b.claim(1)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	b.check("cancelled", b.store.Reserve(cancelled, c), ledger.ErrUnavailable)
	expired, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	b.check("past its deadline", b.store.Reserve(expired, c), ledger.ErrUnavailable)
	b.entries(0)
	b.reserve("with time left", c, nil)
}

func racers(t *testing.T, b *bench) {
	for round := range 200 {
		c := b.claim(round)
		c.Until = b.clock.Now().Add(time.Second)
		var won, lost atomic.Int64
		race(64, func(int) {
			mine := other(c)
			switch err := b.store.Reserve(context.Background(), mine); {
			case err == nil:
				won.Add(1)
				if err := b.store.Commit(context.Background(), mine.Key, mine.Owner); err != nil {
					t.Errorf("commit by the winner: %v", err)
				}
			case errors.Is(err, ledger.ErrReserved), errors.Is(err, ledger.ErrConsumed):
				lost.Add(1)
			default:
				t.Errorf("reserve: got %v, want nil, ErrReserved or ErrConsumed", err)
			}
		})
		if won.Load() != 1 || lost.Load() != 63 {
			t.Fatalf("round %d: got %d winners and %d losers, want 1 and 63", round, won.Load(), lost.Load())
		}
		b.clock.Add(time.Second)
	}
}

func racersReleasing(t *testing.T, b *bench) {
	c := b.claim(1)
	var holders, won atomic.Int64
	race(64, func(int) {
		for range 20 {
			mine := other(c)
			if err := b.store.Reserve(context.Background(), mine); err != nil {
				b.check("reserve by a loser", err, ledger.ErrReserved)
				continue
			}
			won.Add(1)
			if n := holders.Add(1); n != 1 {
				t.Errorf("got %d holders at once, want 1", n)
			}
			holders.Add(-1)
			b.check("release by the holder", b.store.Release(context.Background(), mine.Key, mine.Owner), nil)
		}
	})
	if won.Load() == 0 {
		t.Error("got no holder, want some")
	}
	b.entries(0)
	b.reserve("it afterwards", c, nil)
}

func racersForRoom(t *testing.T, b *bench) {
	var won atomic.Int64
	race(64, func(racer int) {
		for i := range 20 {
			switch err := b.store.Reserve(context.Background(), b.claim(1000*racer+i)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ledger.ErrFull):
				t.Errorf("reserve: got %v, want nil or ErrFull", err)
			}
		}
	})
	if won.Load() != capacity {
		t.Errorf("got %d reservations, want %d", won.Load(), capacity)
	}
	b.entries(capacity)
}

func race(racers int, run func(racer int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

func closed(t *testing.T, b *bench) {
	c := b.claim(1)
	b.reserve("before", c, nil)
	if err := b.store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	b.reserve("after", b.claim(2), ledger.ErrUnavailable)
	b.commit("after", c, ledger.ErrUnavailable)
	b.release("after", c, ledger.ErrUnavailable)
	_, err := b.store.Stats(context.Background())
	b.check("stats after", err, ledger.ErrUnavailable)
	if err := b.store.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func stats(t *testing.T, b *bench) {
	got, err := b.store.Stats(context.Background())
	if err != nil || (got.Capacity != capacity && got.Capacity != 0) {
		t.Errorf("stats: got %+v, %v, want capacity %d, or 0 for none", got, err, capacity)
	}
	one, two, three := b.claim(1), b.claim(2), b.claim(3)
	three.Until = three.Until.Add(time.Minute)
	for _, c := range []ledger.Claim{one, two, three} {
		b.reserve("it", c, nil)
	}
	b.entries(3)
	b.commit("one", one, nil)
	b.entries(3)
	b.release("two", two, nil)
	b.entries(2)
	b.clock.Add(5 * time.Minute)
	b.entries(1)
	b.clock.Add(time.Minute)
	b.entries(0)
}
