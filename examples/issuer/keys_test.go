package issuer_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/issuer"
)

// verify checks a token as a stranger would: by the published keys and nothing else.
func (w *world) verify(token string) map[string]any {
	w.t.Helper()
	claims, err := w.parse(token)
	if err != nil {
		w.t.Errorf("verify token: %v", err)
	}
	return claims
}

func (w *world) parse(token string) (jwt.MapClaims, error) {
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		res, err := http.Get(w.url + "/.well-known/jwks")
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			return nil, err
		}
		return find(raw, t.Header["kid"], t.Method.Alg())
	}, jwt.WithIssuer("app.dynamicauth.com/"+environment), jwt.WithAudience(audience), jwt.WithTimeFunc(w.clock),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	return claims, err
}

func find(jwks []byte, id any, algorithm string) (any, error) {
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, err
	}
	for _, k := range set.Keys {
		if k["kid"] != id || k["alg"] != algorithm || k["use"] != "sig" {
			continue
		}
		number := func(name string) []byte {
			raw, _ := base64.RawURLEncoding.DecodeString(k[name])
			return raw
		}
		switch k["kty"] {
		case "RSA":
			e := new(big.Int).SetBytes(number("e"))
			return &rsa.PublicKey{N: new(big.Int).SetBytes(number("n")), E: int(e.Int64())}, nil
		case "EC":
			return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, number("x"), number("y")))
		case "OKP":
			return ed25519.PublicKey(number("x")), nil
		}
	}
	return nil, errors.New("key not published")
}

func TestTokensVerifyAgainstThePublishedKeys(t *testing.T) {
	for _, algorithm := range []string{"", "RS256", "ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			w := newWorld(t, func(c *issuer.Config) { c.Algorithm = algorithm })
			session, err := w.issuer.SessionToken("ann")
			if err != nil {
				t.Fatal(err)
			}
			if claims := w.verify(session); claims["sub"] != "ann" || claims["scope"] != "user:basic" {
				t.Errorf("got session claims %v", claims)
			}
			elevated, err := w.issuer.ElevatedToken("ann", []string{"wallet:export", "wallet:sign"}, true)
			if err != nil {
				t.Fatal(err)
			}
			if claims := w.verify(elevated); claims["scope"] != "wallet:export wallet:sign" || claims["singleUse"] != true {
				t.Errorf("got elevated claims %v", claims)
			}
			if got := w.do("GET", "/session", nil, bearer(session)); got.Status != 204 {
				t.Errorf("session check: got %d", got.Status)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	first, err := w.issuer.SessionToken("ann")
	if err != nil {
		t.Fatal(err)
	}
	rotate := func() {
		if err := w.issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	rotate()
	second, err := w.issuer.SessionToken("ann")
	if err != nil {
		t.Fatal(err)
	}
	w.verify(first)
	w.verify(second)
	rotate()
	w.verify(second)
	if _, err := w.parse(first); err == nil {
		t.Error("the key before the last is still published")
	}
	refuse(t, w.do("GET", "/session", nil, bearer(first)), 401, "unauthorized")
}

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(c *issuer.Config) { c.Dir = dir })
	session, secret := enrolled(t, w)
	if err := w.issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	code := w.code(secret)
	if got := w.do("POST", "/users/mfa/auth/totp", m{"code": code}, bearer(session)); got.Status != 200 {
		t.Fatalf("got %d %s", got.Status, got.Code)
	}
	keys := string(w.issuer.JWKS())
	if err := w.issuer.Close(); err != nil {
		t.Fatal(err)
	}

	again := newWorld(t, func(c *issuer.Config) { c.Dir, c.Now = dir, w.clock })
	if got := string(again.issuer.JWKS()); got != keys {
		t.Errorf("keys changed:\n%s\n%s", got, keys)
	}
	refuse(t, again.do("POST", "/users/mfa/auth/totp", m{"code": code}, bearer(session)), 422, "mfa_invalid_code")
	if user := again.signIn("ann@example.com").User; user.NewUser {
		t.Errorf("the user was forgotten: %+v", user)
	}
}

func TestConfigurations(t *testing.T) {
	good := issuer.Config{Dir: t.TempDir(), Environment: environment, Audience: audience, Algorithm: "ES256"}
	held := open(t, good)
	tests := map[string]func(*issuer.Config){
		"no directory":       func(c *issuer.Config) { c.Dir = "" },
		"missing directory":  func(c *issuer.Config) { c.Dir += "/missing" },
		"directory in use":   func(*issuer.Config) {},
		"no environment":     func(c *issuer.Config) { c.Environment = "" },
		"no audience":        func(c *issuer.Config) { c.Audience = "" },
		"unknown algorithm":  func(c *issuer.Config) { c.Dir, c.Algorithm = t.TempDir(), "HS256" },
		"algorithm in lower": func(c *issuer.Config) { c.Dir, c.Algorithm = t.TempDir(), "rs256" },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := good
			edit(&cfg)
			if i, err := issuer.New(cfg); err == nil {
				_ = i.Close()
				t.Error("New took it")
			}
		})
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var wait sync.WaitGroup
	for n := range 16 {
		wait.Go(func() {
			email := string(rune('a'+n%4)) + "@example.com"
			a := w.do("POST", "/emailVerifications/signin", w.proof(email))
			if a.Status != 200 || a.User.Email != email {
				t.Errorf("sign in %s: got %d %s", email, a.Status, a.Code)
			}
			if n == 7 {
				if err := w.issuer.Rotate(); err != nil {
					t.Error(err)
				}
			}
			if a := w.do("GET", "/session", nil, bearer(a.JWT)); a.Status != 204 {
				t.Errorf("session of %s: got %d", email, a.Status)
			}
		})
	}
	wait.Wait()
}
