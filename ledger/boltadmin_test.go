package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/ledger"
)

// spentFile is a ledger file with so many keys of which the first half is over.
func spentFile(t *testing.T, keys int) (path string, claims []ledger.Claim) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.db")
	hourAgo := time.Now().Add(-time.Hour)
	now := hourAgo
	s := openAt(t, path, func() time.Time { return now })
	for n := range keys {
		c := ledger.Claim{
			Key: ledger.KeyOf(ledger.KindJTI, "e", "i", fmt.Sprint(n)), Owner: ledger.NewOwner(),
			IssuedAt: now.Add(time.Minute), Until: now.Add(5 * time.Minute),
		}
		if n >= keys/2 {
			c.Until = now.Add(2 * time.Hour)
		}
		claims = append(claims, c)
	}
	done := make(chan error)
	for _, c := range claims {
		go func() {
			err := s.Reserve(context.Background(), c)
			if err == nil && c.Key[0]%2 == 0 {
				err = s.Commit(context.Background(), c.Key, c.Owner)
			}
			done <- err
		}()
	}
	for range claims {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, claims
}

func openAt(t *testing.T, path string, now func() time.Time) ledger.Store {
	t.Helper()
	s, err := ledger.Open(context.Background(), "bolt:"+path, ledger.Options{Capacity: 1_000_000, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInspectFile(t *testing.T) {
	path, claims := spentFile(t, 1000)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.InspectFile(context.Background(), path, time.Now())
	reserved := int64(0)
	for _, c := range claims[500:] {
		reserved += int64(c.Key[0] % 2)
	}
	if err != nil || r.Live != 500 || r.Records != 1000 || r.Reserved != reserved || r.Bytes != int64(len(before)) ||
		!r.LastOver.Equal(claims[999].Until) || time.Since(r.Began) < 59*time.Minute {
		t.Errorf("got %+v, %v", r, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("looking changed the file (%v)", err)
	}
}

func TestCompactFile(t *testing.T) {
	path, claims := spentFile(t, 20_000)
	before, after, err := ledger.CompactFile(context.Background(), path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if before.Live != after.Live || before.Began != after.Began || after.Bytes > before.Bytes {
		t.Errorf("before %+v, after %+v", before, after)
	}
	s := openAt(t, path, time.Now)
	defer s.Close()
	for n := 10_000; n < len(claims); n += 97 {
		if err := s.Reserve(context.Background(), claims[n]); !errors.Is(err, ledger.ErrReserved) && !errors.Is(err, ledger.ErrConsumed) {
			t.Fatalf("key %d after compacting: %v", n, err)
		}
	}
	old := claims[0]
	old.Key, old.IssuedAt, old.Until = ledger.Key{1}, time.Now().Add(-2*time.Hour), time.Now().Add(time.Hour)
	if err := s.Reserve(context.Background(), old); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("the fence is gone: %v", err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestToolsRefuse(t *testing.T) {
	path, _ := spentFile(t, 10)
	dir := filepath.Dir(path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	broken := filepath.Join(dir, "broken.db")
	for _, page := range []int{4096, 8192, 12288} { // wherever records lie
		text[page+40] ^= 0xff
	}
	if err := os.WriteFile(broken, text, 0o600); err != nil {
		t.Fatal(err)
	}
	used := openAt(t, path, time.Now)
	defer used.Close()
	for name, row := range map[string]struct{ path, want string }{
		"missing": {filepath.Join(dir, "none.db"), "is not there"},
		"folder":  {dir, "is not a file"},
		"damaged": {broken, "is damaged"},
		"in use":  {path, "is in use by"},
	} {
		if _, err := ledger.InspectFile(context.Background(), row.path, time.Now()); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("inspect %s: got %v, want %q", name, err, row.want)
		}
		if _, _, err := ledger.CompactFile(context.Background(), row.path, time.Now()); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("compact %s: got %v, want %q", name, err, row.want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}
