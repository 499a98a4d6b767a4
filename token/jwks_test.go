package token_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/stepward/stepward/token"
)

// jwkWith is a key's JWK with members changed; a nil value removes one.
func jwkWith(s signer, edits ...any) map[string]any {
	k := maps.Clone(s.jwk())
	for i := 0; i < len(edits); i += 2 {
		if edits[i+1] == nil {
			delete(k, edits[i].(string))
			continue
		}
		k[edits[i].(string)] = edits[i+1]
	}
	return k
}

// TestSets: rows are whole JWK Sets, read from a file. Each has the good key besides, so that nothing else is wrong.
func TestSets(t *testing.T) {
	good := newSigner("good")
	rsaKey, p384, p521, ed := ring()["RS256"], ring()["ES384"], ring()["ES512"], ring()["EdDSA"]
	small, large := signer{"small", "RS256", newRSA(1024)}, rsaOfBits(8200)
	exponent := func(e int64) map[string]any { return jwkWith(rsaKey, "e", b64(string(big.NewInt(e).Bytes()))) }
	point, err := good.private.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	many := func(n int) (keys []any) {
		for i := range n {
			keys = append(keys, jwkWith(good, "kid", fmt.Sprint(i)))
		}
		return keys
	}
	rows := []struct {
		name string
		add  any // one more key, or []any: several
		want string
	}{
		{"another RSA key", rsaKey.jwk(), "2 keys"},
		{"another P-384 key", p384.jwk(), "2 keys"},
		{"another P-521 key", p521.jwk(), "2 keys"},
		{"another Ed25519 key", ed.jwk(), "2 keys"},
		{"key without alg and use", jwkWith(p384, "alg", nil, "use", nil), "2 keys"},
		{"key with members we do not know", jwkWith(p384, "x5c", []any{"MII"}, "x5t", "AA", "exp", 1, "iat", nil), "2 keys"},
		{"key_ops verify", jwkWith(p384, "use", nil, "key_ops", []any{"verify"}), "2 keys"},
		{"exponent 3", exponent(3), "2 keys"},
		{"64 keys", many(63), "64 keys"},

		{"for encryption", jwkWith(p384, "use", "enc"), "1 keys, 1 ignored"},
		{"key_ops sign", jwkWith(p384, "key_ops", []any{"sign"}), "1 keys, 1 ignored"},
		{"key_ops empty", jwkWith(p384, "key_ops", []any{}), "1 keys, 1 ignored"},
		{"key_ops a string", jwkWith(p384, "key_ops", "verify"), "1 keys, 1 ignored"},
		{"without kid", jwkWith(p384, "kid", nil), "1 keys, 1 ignored"},
		{"kid longer than a token's", jwkWith(p384, "kid", strings.Repeat("k", 129)), "1 keys, 1 ignored"},
		{"kid not ASCII", jwkWith(p384, "kid", "ключ"), "1 keys, 1 ignored"},
		{"alg for encryption", jwkWith(rsaKey, "alg", "RSA-OAEP-256"), "1 keys, 1 ignored"},
		{"alg PS256", jwkWith(rsaKey, "alg", "PS256"), "1 keys, 1 ignored"},
		{"alg HS256", jwkWith(rsaKey, "alg", "HS256"), "1 keys, 1 ignored"},
		{"alg none", jwkWith(rsaKey, "alg", "none"), "1 keys, 1 ignored"},
		{"curve secp256k1", jwkWith(good, "crv", "secp256k1"), "1 keys, 1 ignored"},
		{"curve X25519", jwkWith(ed, "crv", "X25519"), "1 keys, 1 ignored"},
		{"type from the future", map[string]any{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"}, "1 keys, 1 ignored"},
		{"type from the future without alg", map[string]any{"kty": "AKP", "kid": "pq"}, "1 keys, 1 ignored"},
		{"RSA of 1024 bits", small.jwk(), "1 keys, 1 ignored"},
		{"RSA of 8200 bits", large, "1 keys, 1 ignored"},

		{"symmetric", map[string]any{"kty": "oct", "kid": "s", "k": "c2VjcmV0"}, "key 1: symmetric key"},
		{"symmetric, for others", map[string]any{"kty": "oct", "use": "enc"}, "key 1: symmetric key"},
		{"k beside an RSA key", jwkWith(rsaKey, "k", "c2VjcmV0"), "key 1: private key"},
		{"private RSA", jwkWith(rsaKey, "d", "AQ"), "key 1: private key"},
		{"private RSA without d", jwkWith(rsaKey, "p", "AQ"), "key 1: private key"},
		{"private EC", jwkWith(p384, "d", "AQ"), "key 1: private key"},
		{"private, for others", jwkWith(p384, "d", "AQ", "use", "enc"), "key 1: private key"},
		{"same kid twice", jwkWith(p384, "kid", "good"), "key 1: its kid is another key's too"},
		{"same key twice", good.jwk(), "key 1: its kid is another key's too"},
		{"65 keys", many(64), "65 keys, more than 64"},
		{"a number", 7, "key 1: not an object"},
		{"null", nil, "key 1: not an object"},
		{"no kty", jwkWith(p384, "kty", nil), "key 1: kty is missing"},
		{"kty a number", jwkWith(p384, "kty", 1), "key 1: kty"},
		{"kid a number", jwkWith(p384, "kid", 1), "key 1: kid"},
		{"alg of another type", jwkWith(p384, "alg", "RS256"), "key 1: alg does not go with the key"},
		{"alg of another curve", jwkWith(p384, "alg", "ES256"), "key 1: alg does not go with the key"},
		{"no n", jwkWith(rsaKey, "n", nil), "key 1: n is missing"},
		{"no e", jwkWith(rsaKey, "e", nil), "key 1: e is missing"},
		{"n empty", jwkWith(rsaKey, "n", ""), "key 1: n is missing"},
		{"n a number", jwkWith(rsaKey, "n", 1), "key 1: n is missing"},
		{"n padded", jwkWith(rsaKey, "n", rsaKey.jwk()["n"].(string)+"=="), "key 1: n is not base64url"},
		{"n with a newline", jwkWith(rsaKey, "n", "AQ\nAB"), "key 1: n is not base64url"},
		{"e with stray bits", jwkWith(rsaKey, "e", "AR"), "key 1: e is missing or not base64url"},
		{"n even", jwkWith(rsaKey, "n", b64(string(bytes.Repeat([]byte{0xfe}, 256)))), "key 1: RSA modulus is even"},
		{"exponent 1", exponent(1), "key 1: RSA exponent"},
		{"exponent even", exponent(65536), "key 1: RSA exponent"},
		{"exponent 2^31 + 1", exponent(1<<31 + 1), "key 1: RSA exponent"},
		{"exponent zero", jwkWith(rsaKey, "e", "AA"), "key 1: RSA exponent"},
		{"exponent of 300 bytes", jwkWith(rsaKey, "e", rsaKey.jwk()["n"]), "key 1: RSA exponent"},
		{"no y", jwkWith(p384, "y", nil), "key 1: y is missing"},
		{"no x", jwkWith(p384, "x", nil), "key 1: x is missing"},
		{"off the curve", jwkWith(good, "kid", "off", "y", good.jwk()["x"]), "key 1: point is not on the curve"},
		{"at infinity", jwkWith(good, "kid", "inf", "x", b64(string(make([]byte, 32))), "y", b64(string(make([]byte, 32)))), "key 1: point is not on the curve"},
		{"coordinate with a zero before", jwkWith(good, "kid", "long", "x", b64("\x00"+string(point[1:33]))), "key 1: coordinates of the wrong length"},
		{"curve of another size", jwkWith(good, "kid", "c", "crv", "P-384"), "key 1: coordinates of the wrong length"},
		{"Ed25519 without x", jwkWith(ed, "x", nil), "key 1: x is missing"},
		{"Ed25519 too short", jwkWith(ed, "x", "AQAB"), "key 1: key of the wrong length"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			list, ok := r.add.([]any)
			if !ok {
				list = []any{r.add}
			}
			expectSet(t, setOfJWKs(append([]any{good.jwk()}, list...)...), r.want)
		})
	}
}

// rsaOfBits is the JWK of something that looks like a public key of that size; making a real one takes long.
func rsaOfBits(bits int) map[string]any {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.SetBit(n, 0, 1)
	return signer{"large", "RS256", &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}}}.jwk()
}

// expectSet reads a set and compares "n keys, m ignored" or the error.
func expectSet(t *testing.T, set, want string) {
	t.Helper()
	path := writeFile(t, set)
	k, err := token.NewKeys(token.KeysConfig{File: path, Now: fixed(start)})
	if err != nil {
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %q, want the file and %q", err, want)
		}
		return
	}
	stats := k.Stats()
	got := fmt.Sprintf("%d keys", stats.Keys)
	if stats.Ignored > 0 {
		got += fmt.Sprintf(", %d ignored", stats.Ignored)
	}
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTextsThatAreNoSets(t *testing.T) {
	good := setOf(newSigner("k"))
	rows := []struct{ name, text, want string }{
		{"empty", "", "not a JSON object"},
		{"HTML", "<!doctype html><title>Sign in</title>", "not a JSON object"},
		{"a list", "[]", "not a JSON object"},
		{"cut short", good[:len(good)-3], "not a JSON object"},
		{"something behind", good + "}", "not a JSON object"},
		{"two sets", good + good, "not a JSON object"},
		{"no keys", "{}", "no array named keys"},
		{"keys null", `{"keys":null}`, "no array named keys"},
		{"keys an object", `{"keys":{}}`, "no array named keys"},
		{"one key without a set", text(newSigner("k").jwk()), "no array named keys"},
		{"keys in other case", strings.Replace(good, "keys", "Keys", 1), "no array named keys"},
		{"keys twice", strings.TrimSuffix(good, "}") + `,"keys":[]}`, "duplicate"},
		{"kty twice", strings.Replace(good, `"kty"`, `"kty":"oct","kty"`, 1), "duplicate"},
		{"invalid UTF-8", strings.Replace(good, `"k"`, "\"\xff\"", 1), "UTF-8"},
		{"PEM", "-----BEGIN PUBLIC KEY-----", "not a JSON object"},
		{"empty set", `{"keys":[]}`, "no usable key"},
		{"nothing for us", setOfJWKs(jwkWith(newSigner("k"), "use", "enc")), "no usable key: 1 are not for us, the first is not for signatures"},
		{"weak keys only", setOf(signer{"w", "RS256", newRSA(1024)}), "no usable key: 1 are not for us, the first is RSA key of 1024 bits, want 2048 to 8192"},
		{"large", `{"keys":[],"pad":"` + strings.Repeat("x", 1<<20) + `"}`, "larger than 1048576 bytes"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { expectSet(t, r.text, r.want) })
	}
}

// TestKeysWithoutAlg: such a key is for any algorithm of its kind, and no other.
func TestKeysWithoutAlg(t *testing.T) {
	private := ring()["RS256"].private
	path := writeFile(t, setOfJWKs(jwkWith(signer{"r", "RS256", private}, "alg", nil)))
	k, err := token.NewKeys(token.KeysConfig{File: path, Now: fixed(start)})
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(t, token.Elevated)
	c.Issuers[0].Keys = k
	v := newVerifier(t, c)
	for _, alg := range []string{"RS256", "RS384", "RS512"} {
		raw := signer{"r", alg, private}.token(elevatedClaims())
		got, err := v.Verify(t.Context(), raw)
		expect(t, raw, got, err, "ok", "")
	}
	raw := signer{"r", "ES256", newEC(elliptic.P256())}.token(elevatedClaims())
	got, err := v.Verify(t.Context(), raw)
	expect(t, raw, got, err, "invalid", "not for this algorithm")
}

func TestAllowedAlgorithmsNarrowTheSet(t *testing.T) {
	path := writeFile(t, setOf(ring()["RS256"], ring()["ES384"]))
	k, err := token.NewKeys(token.KeysConfig{File: path, Now: fixed(start), AllowedAlgorithms: []string{"RS256"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := k.Stats(); s.Keys != 1 || s.Ignored != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestKeysConfigFaults(t *testing.T) {
	rows := []struct {
		name string
		c    token.KeysConfig
		want string
	}{
		{"nothing", token.KeysConfig{}, "want one of url and file"},
		{"both", token.KeysConfig{URL: "https://a.example", File: "x"}, "want one of url and file"},
		{"no clock", token.KeysConfig{URL: "https://a.example"}, "no clock"},
		{"negative", token.KeysConfig{URL: "https://a.example", Now: fixed(start), Timeout: -1}, "negative"},
		{"negative limit", token.KeysConfig{URL: "https://a.example", Now: fixed(start), MaxBytes: -1}, "negative"},
		{"stale before refreshed", token.KeysConfig{URL: "https://a.example", Now: fixed(start), MaxStale: 1}, "max stale 1ns is shorter"},
		{"algorithm", token.KeysConfig{URL: "https://a.example", Now: fixed(start), AllowedAlgorithms: []string{"none"}}, `algorithm "none"`},
		{"http", token.KeysConfig{URL: "http://a.example/jwks", Now: fixed(start)}, "want https (http on loopback only)"},
		{"http to an address", token.KeysConfig{URL: "http://10.0.0.1/jwks", Now: fixed(start)}, "want https"},
		{"http to a name that only begins so", token.KeysConfig{URL: "http://localhost.evil.example/", Now: fixed(start)}, "want https"},
		{"http to an address that only begins so", token.KeysConfig{URL: "http://127.0.0.1.evil.example/", Now: fixed(start)}, "want https"},
		{"file by URL", token.KeysConfig{URL: "file:///etc/passwd", Now: fixed(start)}, "no host"},
		{"other scheme", token.KeysConfig{URL: "gopher://a.example/", Now: fixed(start)}, "want https"},
		{"no scheme", token.KeysConfig{URL: "a.example/jwks", Now: fixed(start)}, "no host"},
		{"no host", token.KeysConfig{URL: "https:///jwks", Now: fixed(start)}, "no host"},
		{"port only", token.KeysConfig{URL: "https://:443/jwks", Now: fixed(start)}, "no host"},
		{"user info", token.KeysConfig{URL: "https://user:hush@a.example/jwks", Now: fixed(start)}, "user info"},
		{"fragment", token.KeysConfig{URL: "https://a.example/jwks#k", Now: fixed(start)}, "fragments"},
		{"not a URL", token.KeysConfig{URL: "https://a.example/%zz?hush", Now: fixed(start)}, "invalid URL escape"},
		{"file missing", token.KeysConfig{File: "/nowhere/jwks.json", Now: fixed(start)}, "/nowhere/jwks.json: no such file or directory"},
		{"file a directory", token.KeysConfig{File: "/", Now: fixed(start)}, "/: is a directory"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			k, err := token.NewKeys(r.c)
			if k != nil || err == nil || !strings.Contains(err.Error(), r.want) {
				t.Fatalf("got %v, %v, want %q", k, err, r.want)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("%q holds a secret", err)
			}
			if errors.Is(err, token.ErrInvalid) {
				t.Errorf("%v is about a token", err)
			}
		})
	}
	for _, address := range []string{"https://a.example/jwks", "http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/", "http://127.9.9.9/"} {
		if _, err := token.NewKeys(token.KeysConfig{URL: address, Now: fixed(start)}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
