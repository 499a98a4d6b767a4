//go:build unix

package redis_test

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
	"github.com/stepward/stepward/ledger/redis"
)

// Calls that are there together are one script. What is wrong with one of them is nothing to the others.
func TestCallsThatAreAskedTogether(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	past := func() time.Time { return time.Now().Add(-time.Hour) }
	s := open(t, redis.Config{URL: "redis://" + server.Addr, Prefix: "p", Timeout: 10 * time.Second, Now: past})
	const calls, foreign, twice = 300, 7, 11
	now := time.Now()
	claims := make([]ledger.Claim, calls)
	for i := range claims {
		claims[i] = ledger.Claim{Key: ledgertest.Numbered(uint64(i)), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(time.Hour)}
	}
	claims[twice+1].Key = claims[twice].Key
	key := claims[foreign].Key
	server.Do("LPUSH", "p:"+base64.RawURLEncoding.EncodeToString(key[:]), "x") // nobody's record

	errs := make([]error, calls)
	each := func(do func(i int) error) {
		var wg sync.WaitGroup
		for i := range claims {
			wg.Go(func() { errs[i] = do(i) })
		}
		wg.Wait()
	}
	each(func(i int) error { return s.Reserve(context.Background(), claims[i]) })
	winner, loser := twice, twice+1
	if errs[winner] != nil {
		winner, loser = loser, winner
	}
	for i, err := range errs {
		var want error
		switch i {
		case foreign:
			want = ledger.ErrUnknown
		case loser:
			want = ledger.ErrReserved
		}
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("reserve %d: got %v, want %v", i, err, want)
		}
	}
	each(func(i int) error { // every other one goes back
		if i%2 == 0 {
			return s.Release(context.Background(), claims[i].Key, claims[i].Owner)
		}
		return s.Commit(context.Background(), claims[i].Key, claims[i].Owner)
	})
	for i, err := range errs {
		if wrong := i == foreign || i == loser; wrong != errors.Is(err, ledger.ErrConsumed) || !wrong && err != nil {
			t.Errorf("settle %d: %v", i, err)
		}
	}
	each(func(i int) error {
		c := claims[i]
		c.Owner = ledger.NewOwner()
		return s.Reserve(context.Background(), c)
	})
	for i, err := range errs {
		switch {
		case i == foreign, i == winner, i == loser:
		case i%2 == 0 && err != nil:
			t.Errorf("%d was given back: %v", i, err)
		case i%2 == 1 && !errors.Is(err, ledger.ErrConsumed):
			t.Errorf("%d was spent: %v", i, err)
		}
	}
}

// A caller that leaves takes nobody with it.
func TestACallerThatLeaves(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	past := func() time.Time { return time.Now().Add(-time.Hour) }
	s := open(t, redis.Config{URL: "redis://" + server.Addr, Timeout: 10 * time.Second, Now: past})
	now := time.Now()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i%2 == 1 {
				time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
			}
			c := ledger.Claim{Key: ledgertest.Numbered(uint64(i)), Owner: ledger.NewOwner(), IssuedAt: now, Until: now.Add(time.Hour)}
			err := s.Reserve(ctx, c)
			if i%2 == 0 && err != nil || err != nil && !errors.Is(err, ledger.ErrUnknown) && !errors.Is(err, ledger.ErrUnavailable) {
				t.Errorf("%d: %v", i, err)
			}
			if errors.Is(err, ledger.ErrUnavailable) { // provably not written
				if err := s.Reserve(context.Background(), c); err != nil {
					t.Errorf("%d again: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}
