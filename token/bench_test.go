package token_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/token"
)

// TestACachedTokenCostsNoAllocation holds the promise of the hot path.
func TestACachedTokenCostsNoAllocation(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Session))
	raw := ring()["RS256"].token(sessionClaims())
	got := testing.AllocsPerRun(100, func() {
		if _, err := v.Verify(context.Background(), raw); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("got %v allocations", got)
	}
}

// BenchmarkVerify proves session tokens as Dynamic writes them: about 700 bytes of payload, as minified, and 4 KiB, as full.
func BenchmarkVerify(b *testing.B) {
	minified := sessionClaims().with("session_public_key", strings.Repeat("k", 66)).with("hashed_ip", strings.Repeat("h", 64)).
		with("verifiedCredentialsHashes", map[string]any{"blockchain": strings.Repeat("a", 32), "email": strings.Repeat("b", 32)}).
		with("roles", []any{}).with("email", "alice@wallet.example").with("refreshExp", start.Add(time.Hour).Unix())
	full := minified.with("verified_credentials", strings.Split(strings.Repeat("0123456789abcdef0123456789abcdef,", 100), ","))
	cached := configOf(b, token.Session)
	uncached := configOf(b, token.Session)
	uncached.CacheSize = -1
	run := func(name string, c token.Config, raw, kind string) {
		b.Run(name, func(b *testing.B) {
			v := newVerifier(b, c)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := v.Verify(context.Background(), raw); kindOf(err) != kind {
						b.Fatal(err)
					}
				}
			})
		})
	}
	run("cached", cached, ring()["RS256"].token(minified), "ok")
	run("cached full", cached, ring()["RS256"].token(full), "ok")
	for _, alg := range token.Algorithms() {
		run(alg, uncached, ring()[alg].token(minified), "ok")
	}
	run("RS256 full", uncached, ring()["RS256"].token(full), "ok")
	es := ring()["ES256"]
	run("garbage", cached, strings.Repeat("A", 700)+"..", "malformed")
	run("unknown issuer", cached, es.token(minified.with("iss", "x")), "invalid")
	run("many members", cached, es.sign(es.header(), "{"+manyMembers(700)+`"x":1}`), "invalid")
	run("deep", cached, es.sign(es.header(), strings.Repeat(`{"a":`, 900)+"1"+strings.Repeat("}", 900)), "invalid")
	run("expired", uncached, es.token(minified.with("exp", start.Add(-time.Hour).Unix())), "expired")
}

// manyMembers are members whose names fold, which is the dear way.
func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"` + string(rune('A'+i%26)) + string(rune('A'+i/26)) + `":1,`)
	}
	return b.String()
}
