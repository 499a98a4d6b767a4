package ledger_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// model is the contract in its plainest form.
type model struct {
	capacity int
	keys     map[ledger.Key]modelKey
}

type modelKey struct {
	owner     ledger.Owner
	until     time.Time
	committed bool
}

func (m *model) forget(now time.Time) {
	for k, e := range m.keys {
		if !e.until.After(now) {
			delete(m.keys, k)
		}
	}
}

func (m *model) reserve(c ledger.Claim) error {
	e, ok := m.keys[c.Key]
	switch {
	case ok && e.committed:
		return ledger.ErrConsumed
	case ok:
		return ledger.ErrReserved
	case len(m.keys) >= m.capacity:
		return ledger.ErrFull
	}
	m.keys[c.Key] = modelKey{owner: c.Owner, until: c.Until}
	return nil
}

func (m *model) commit(k ledger.Key, o ledger.Owner) error {
	e, ok := m.keys[k]
	if !ok || e.owner != o {
		return ledger.ErrConsumed
	}
	e.committed = true
	m.keys[k] = e
	return nil
}

func (m *model) release(k ledger.Key, o ledger.Owner) error {
	if e, ok := m.keys[k]; !ok || e.owner != o || e.committed {
		return ledger.ErrConsumed
	}
	delete(m.keys, k)
	return nil
}

// TestRandomOperationsAgreeWithTheModel compares every answer and count; the bolt store is reopened now and then.
func TestRandomOperationsAgreeWithTheModel(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind, func(t *testing.T) {
			for range 5 {
				seed := rand.Uint64()
				runModel(t, kind, rand.New(rand.NewPCG(seed, 0)))
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func runModel(t *testing.T, kind string, random *rand.Rand) {
	ctx := context.Background()
	clock := ledgertest.NewClock()
	m := &model{capacity: 20, keys: map[ledger.Key]modelKey{}}
	address := "memory:"
	if kind == "bolt" {
		address = "bolt:" + filepath.Join(t.TempDir(), "l.db")
	}
	options := ledger.Options{Capacity: m.capacity, Now: clock.Now}
	s := open(t, address, options)
	defer func() { s.Close() }()
	for range 1500 {
		m.forget(clock.Now())
		k, o := numbered(random.Uint64N(30)), ledger.Owner{byte(random.IntN(3))}
		var what string
		var got, want error
		switch draw := random.IntN(100); {
		case draw < 45:
			c := ledger.Claim{Key: k, Owner: o, IssuedAt: clock.Now(), Until: clock.Now().Add(time.Duration(1+random.IntN(900)) * time.Second)}
			what, got, want = "reserve", s.Reserve(ctx, c), m.reserve(c)
		case draw < 65:
			what, got, want = "commit", s.Commit(ctx, k, o), m.commit(k, o)
		case draw < 85:
			what, got, want = "release", s.Release(ctx, k, o), m.release(k, o)
		case draw < 98 || kind == "memory":
			clock.Add(time.Duration(random.IntN(30)) * time.Second)
			m.forget(clock.Now())
			stats, err := s.Stats(ctx)
			if err != nil || stats.Entries != int64(len(m.keys)) {
				t.Fatalf("stats: got %+v, %v, want %d entries", stats, err, len(m.keys))
			}
		default:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, address, options)
		}
		if !errors.Is(got, want) || (want == nil) != (got == nil) {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
}
