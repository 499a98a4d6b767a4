package ledger_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stepward/stepward/ledger"
)

// TestTheMemorySweepNeedsNoRequests runs in a bubble, where a second passes at once.
func TestTheMemorySweepNeedsNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := ledger.NewMemory(ledger.MemoryConfig{Capacity: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for n := range 5000 {
			c := ledger.Claim{Key: numbered(uint64(n)), IssuedAt: time.Now(), Until: time.Now().Add(time.Minute)}
			if err := m.Reserve(context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		if n := ledger.Held(m); n != 5000 {
			t.Errorf("got %d keys before Until, want 5000", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := ledger.Held(m); n != 0 {
			t.Errorf("got %d keys a second after Until, want none", n)
		}
	})
}
