package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/token"
)

const (
	issuerName  = "app.dynamicauth.com/env-1"
	audience    = "https://wallet.example"
	environment = "env-1"
)

// start is the time at which the tests' clocks begin.
var start = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// clock is set by hand.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time           { return start.Add(time.Duration(c.offset.Load())) }
func (c *clock) pass(d time.Duration)     { c.offset.Add(int64(d)) }
func (c *clock) set(at time.Time)         { c.offset.Store(int64(at.Sub(start))) }
func fixed(at time.Time) func() time.Time { return func() time.Time { return at } }

// signer is one private key of an issuer and the algorithm for which it is used.
type signer struct {
	kid, alg string
	private  crypto.Signer
}

// ring holds one key for each algorithm, by algorithm, with kids like "k-RS256". It is made once for all tests.
var ring = sync.OnceValue(func() map[string]signer {
	private := newRSA(2048)
	keys := map[string]signer{}
	for alg, k := range map[string]crypto.Signer{
		"RS256": private, "RS384": private, "RS512": private,
		"ES256": newEC(elliptic.P256()), "ES384": newEC(elliptic.P384()), "ES512": newEC(elliptic.P521()), "EdDSA": newEd(),
	} {
		keys[alg] = signer{"k-" + alg, alg, k}
	}
	return keys
})

func newRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newEd() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newSigner(kid string) signer { return signer{kid, "ES256", newEC(elliptic.P256())} }

// sign signs header and payload as they are written, whatever they say.
func (s signer) sign(header, payload string) string {
	return s.seal(b64(header) + "." + b64(payload))
}

// seal signs a signing input, which need not be one.
func (s signer) seal(input string) string {
	signature, err := jwt.GetSigningMethod(s.alg).Sign(input, s.private)
	if err != nil {
		panic(err)
	}
	return input + "." + b64(string(signature))
}

func (s signer) header() string {
	return `{"alg":"` + s.alg + `","typ":"JWT","kid":"` + s.kid + `"}`
}

// token signs the claims under the usual header.
func (s signer) token(c claims) string { return s.sign(s.header(), text(c)) }

func (s signer) jwk() map[string]any {
	k := map[string]any{"kid": s.kid, "use": "sig", "alg": s.alg}
	switch public := s.private.Public().(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", b64(string(public.N.Bytes())), b64(string(big.NewInt(int64(public.E)).Bytes()))
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err)
		}
		half := (len(point) - 1) / 2
		k["kty"], k["crv"] = "EC", public.Curve.Params().Name
		k["x"], k["y"] = b64(string(point[1:1+half])), b64(string(point[1+half:]))
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(string(public))
	}
	return k
}

// setOf is the text of a JWK Set.
func setOf(keys ...signer) string {
	list := []any{}
	for _, k := range keys {
		list = append(list, k.jwk())
	}
	return setOfJWKs(list...)
}

func setOfJWKs(keys ...any) string { return text(map[string]any{"keys": keys}) }

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// claims are a payload. with and without make changed copies.
type claims map[string]any

func (c claims) with(name string, value any) claims {
	changed := maps.Clone(c)
	changed[name] = value
	return changed
}

func (c claims) without(name string) claims {
	changed := maps.Clone(c)
	delete(changed, name)
	return changed
}

func sessionClaims() claims {
	return claims{
		"iss": issuerName, "aud": audience, "sub": "alice", "sid": "s-1", "environment_id": environment, "scope": "user:basic",
		"iat": start.Add(-time.Hour).Unix(), "exp": start.Add(time.Hour).Unix(),
	}
}

func elevatedClaims() claims {
	return claims{
		"iss": issuerName, "aud": audience, "sub": "alice", "jti": "e-1", "environment_id": environment, "scope": "wallet:export",
		"singleUse": true, "iat": start.Add(-time.Minute).Unix(), "exp": start.Add(4 * time.Minute).Unix(),
	}
}

func mfaClaims() claims {
	return claims{
		"iss": issuerName, "aud": audience, "sub": "alice", "jti": "m-1", "environment_id": environment, "singleUse": true,
	}
}

// writeFile writes a file of the test's and returns its path.
func writeFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keysOf are keys from a file.
func keysOf(t testing.TB, keys ...signer) *token.Keys {
	t.Helper()
	k, err := token.NewKeys(token.KeysConfig{File: writeFile(t, setOf(keys...)), Now: fixed(start)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func everyKey(t testing.TB) *token.Keys {
	t.Helper()
	keys := []signer{}
	for _, alg := range token.Algorithms() {
		keys = append(keys, ring()[alg])
	}
	return keysOf(t, keys...)
}

// configOf is the configuration that most tests use: one issuer, all algorithms, a clock that stands still at start.
func configOf(t testing.TB, purpose token.Purpose) token.Config {
	t.Helper()
	return token.Config{
		Purpose: purpose, Leeway: 10 * time.Second, Now: fixed(start),
		Issuers: []token.Issuer{{
			Environment: environment, Issuer: []string{issuerName}, Audience: []string{audience}, Algorithms: token.Algorithms(),
			Keys: everyKey(t),
		}},
	}
}

func newVerifier(t testing.TB, c token.Config) *token.Verifier {
	t.Helper()
	v, err := token.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// kindOf names what Verify said, for comparison.
func kindOf(err error) string {
	var expired *token.ExpiredError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &expired):
		return "expired"
	case errors.Is(err, token.ErrMalformed):
		return "malformed"
	case errors.Is(err, token.ErrInvalid):
		return "invalid"
	case errors.Is(err, token.ErrUnavailable):
		return "unavailable"
	}
	return "other"
}

// expect fails the test unless Verify gave that kind of answer, for a reason whose text has why in it, and kept the rule
// that claims come without an error and errors without the token.
func expect(t testing.TB, raw string, c *token.Claims, err error, kind, why string) {
	t.Helper()
	if got := kindOf(err); got != kind {
		t.Fatalf("got %s (%v), want %s", got, err, kind)
	}
	if (c == nil) == (err == nil) {
		t.Errorf("got claims %v with error %v", c, err)
	}
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), why) {
		t.Errorf("got error %q, want it to say %q", err, why)
	}
	for _, part := range strings.Split(raw, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part) {
			t.Errorf("error %q holds a part of the token", err)
		}
	}
}
