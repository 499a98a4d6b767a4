package ledger_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/ledger/ledgertest"
)

// TestWhatIsNotPromised holds what docs/ledger.md warns of. A store that did better would make the warning untrue.
func TestWhatIsNotPromised(t *testing.T) {
	clock := ledgertest.NewClock()
	at := func(t *testing.T, address string) ledger.Store {
		return open(t, address, ledger.Options{Capacity: 10, Now: clock.Now})
	}
	spend := func(t *testing.T, s ledger.Store) {
		t.Helper()
		c := ledger.Claim{Key: numbered(1), Owner: ledger.NewOwner(), IssuedAt: clock.Now(), Until: clock.Now().Add(time.Hour)}
		if err := s.Reserve(context.Background(), c); err != nil {
			t.Errorf("reserve: got %v, want nil", err)
		}
	}
	t.Run("two stores grant the same token once each", func(t *testing.T) {
		for _, address := range []string{"memory:", "memory:", "bolt:" + filepath.Join(t.TempDir(), "l.db"), "bolt:" + filepath.Join(t.TempDir(), "l.db")} {
			s := at(t, address)
			defer s.Close()
			spend(t, s)
		}
	})
	t.Run("an old copy of the file does not know what was spent since", func(t *testing.T) {
		bb, b := newBoltBench(t)
		bb.close(b)
		copied := bb.read()
		b = bb.open()
		bb.reserve(b, "it", bb.claim(1), nil)
		bb.close(b)
		bb.write(copied)
		bb.reserve(bb.open(), "it after the copy was put back", bb.claim(1), nil)
	})
	t.Run("a memory store that restarts with its clock set back grants again", func(t *testing.T) {
		s := at(t, "memory:")
		clock.Add(time.Minute)
		spend(t, s)
		s.Close()
		clock.Add(-10 * time.Minute)
		s = at(t, "memory:")
		defer s.Close()
		clock.Add(9 * time.Minute)
		spend(t, s)
	})
}
