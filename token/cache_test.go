package token_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stepward/stepward/token"
)

func expectStats(t *testing.T, v *token.Verifier, hits, misses uint64, entries int) {
	t.Helper()
	if got, want := v.Stats(), (token.CacheStats{Hits: hits, Misses: misses, Entries: entries}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestProvenTokensAreRemembered(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Session))
	raw := ring()["ES256"].token(sessionClaims())
	first, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	expectStats(t, v, 0, 1, 1)
	second, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Error("proven twice")
	}
	expectStats(t, v, 1, 1, 1)
}

func TestFailuresAreNotRemembered(t *testing.T) {
	c := configOf(t, token.Session)
	v := newVerifier(t, c)
	es := ring()["ES256"]
	raws := []string{
		"", "a.b.c", flip(es.token(sessionClaims())), es.token(elevatedClaims()),
		es.token(sessionClaims().with("exp", start.Add(-time.Hour).Unix())), newSigner("ghost").token(sessionClaims()),
	}
	for range 2 {
		for _, raw := range raws {
			if got, err := v.Verify(t.Context(), raw); err == nil || got != nil {
				t.Errorf("got %v, %v", got, err)
			}
		}
	}
	expectStats(t, v, 0, uint64(2*len(raws)), 0)
}

// TestMemoryEndsWithTheToken: at every moment the answer is the one that a verifier without memory gives.
func TestMemoryEndsWithTheToken(t *testing.T) {
	clock := &clock{}
	c := configOf(t, token.Session)
	c.Now = clock.now
	v := newVerifier(t, c)
	raw := ring()["ES256"].token(sessionClaims().with("nbf", start.Unix()))
	steps := []struct {
		after time.Duration // start
		kind  string
	}{
		{0, "ok"},
		{time.Hour, "ok"},
		{time.Hour + 10*time.Second - 1, "ok"},
		{time.Hour + 10*time.Second, "expired"},
		{time.Hour, "ok"}, // the clock was set back
		{-10 * time.Second, "ok"},
		{-10*time.Second - 1, "invalid"},
		{0, "ok"},
	}
	for _, s := range steps {
		clock.set(start.Add(s.after))
		got, err := v.Verify(t.Context(), raw)
		expect(t, raw, got, err, s.kind, "")
	}
	expectStats(t, v, 5, 3, 1)
}

func TestMemoryIsBounded(t *testing.T) {
	c := configOf(t, token.Session)
	c.CacheSize = 2
	v := newVerifier(t, c)
	for i := range 10 {
		if _, err := v.Verify(t.Context(), ring()["ES256"].token(sessionClaims().with("sid", fmt.Sprint(i)))); err != nil {
			t.Fatal(err)
		}
	}
	expectStats(t, v, 0, 10, 2)
}

func TestNoMemory(t *testing.T) {
	c := configOf(t, token.Session)
	c.CacheSize = -1
	v := newVerifier(t, c)
	raw := ring()["ES256"].token(sessionClaims())
	for range 2 {
		got, err := v.Verify(t.Context(), raw)
		expect(t, raw, got, err, "ok", "")
	}
	expectStats(t, v, 0, 0, 0)
}

// TestMemoryIsOneVerifiers: what one configuration accepts says nothing about another.
func TestMemoryIsOneVerifiers(t *testing.T) {
	a, b := configOf(t, token.Session), configOf(t, token.Session)
	b.Issuers[0].Audience = []string{"https://other.example"}
	raw := ring()["ES256"].token(sessionClaims())
	got, err := newVerifier(t, a).Verify(t.Context(), raw)
	expect(t, raw, got, err, "ok", "")
	got, err = newVerifier(t, b).Verify(t.Context(), raw)
	expect(t, raw, got, err, "invalid", "audience")
}

// TestNewKeysDoNotForget: only a key that goes costs the memory of what it signed.
func TestNewKeysDoNotForget(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, one, "ok")
	p.publish(one, two)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw := one.token(sessionClaims())
	for range 2 {
		if _, err := f.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	hits := f.Stats().Hits
	p.publish(two)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := f.Verify(t.Context(), raw)
	expect(t, raw, got, err, "invalid", "unknown key")
	if got := f.Stats(); got.Hits != hits || got.Entries != 1 {
		t.Errorf("got %+v", got)
	}
}
