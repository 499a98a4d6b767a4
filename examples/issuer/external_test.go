package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/issuer"
)

// company is an authority of the customer's.
type company struct {
	t       *testing.T
	private *ecdsa.PrivateKey
	url     string
}

func newCompany(t *testing.T) *company {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	key := m{"kid": "k", "kty": "EC", "crv": "P-256", "alg": "ES256", "x": b64(point[1:33]), "y": b64(point[33:])}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(m{"keys": []m{key}})
	}))
	t.Cleanup(server.Close)
	return &company{t, private, server.URL}
}

func (c *company) sign(claims m) string {
	c.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims(claims))
	token.Header["kid"] = "k"
	signed, err := token.SignedString(c.private)
	if err != nil {
		c.t.Fatal(err)
	}
	return signed
}

func TestExternalTokens(t *testing.T) {
	c := newCompany(t)
	w := newWorld(t, func(cfg *issuer.Config) {
		cfg.External = &issuer.External{Issuer: "https://company.example", Audience: "wallet", JWKSURL: c.url}
	})
	claims := func(sub string, edits ...func(m)) m {
		claims := m{"iss": "https://company.example", "aud": "wallet", "sub": sub, "exp": w.clock().Add(time.Minute).Unix()}
		for _, edit := range edits {
			edit(claims)
		}
		return claims
	}
	assert := func(jti string) func(m) { return func(c m) { c["jti"], c["scope"] = jti, "wallet:export wallet:sign" } }
	if got := w.do("GET", "/settings", nil).Security.ExternalAuth; !got.Enabled || got.Iss != "https://company.example" || got.JWKSURL != c.url {
		t.Errorf("settings: got %+v", got)
	}
	signIn := func(sub string) answer {
		return w.do("POST", "/externalAuth/signin", m{"jwt": c.sign(claims(sub))}, w.from(newDevice(t)))
	}
	ann := signIn("ann")
	if ann.Status != 200 || ann.User.VerifiedCredentials[0].Format != "externalUser" {
		t.Fatalf("sign in: got %d %s", ann.Status, ann.Code)
	}
	refuse(t, w.do("POST", "/externalAuth/signin", m{"jwt": c.sign(claims("ann", assert("0")))}, w.from(newDevice(t))), 422, "invalid_external_auth")
	stepUp := func(token string) answer {
		return w.do("POST", "/externalAuth/verify", m{"jwt": token}, bearer(ann.JWT))
	}
	good := c.sign(claims("ann", assert("1")))
	got := stepUp(good)
	if claims := w.verify(got.ElevatedAccessToken); claims["scope"] != "wallet:export wallet:sign" || claims["sub"] != ann.User.ID {
		t.Fatalf("got %d %s, claims %v", got.Status, got.Code, claims)
	}
	if got.JWT != "" {
		t.Error("the session changes")
	}
	other := newCompany(t)
	set := func(name string, value any) func(m) { return func(c m) { c[name] = value } }
	bob := signIn("bob")
	tests := map[string]string{
		"used before":        good,
		"of somebody else":   c.sign(claims("bob", assert("2"))),
		"of nobody":          c.sign(claims("", assert("3"))),
		"without a scope":    c.sign(claims("ann", assert("4"), set("scope", ""))),
		"without an id":      c.sign(claims("ann", assert(""))),
		"expired":            c.sign(claims("ann", assert("5"), set("exp", w.clock().Add(-time.Second).Unix()))),
		"without an end":     c.sign(claims("ann", assert("6"), func(c m) { delete(c, "exp") })),
		"good for too long":  c.sign(claims("ann", assert("7"), set("exp", w.clock().Add(time.Hour).Unix()))),
		"by another issuer":  c.sign(claims("ann", assert("8"), set("iss", "https://other.example"))),
		"for another":        c.sign(claims("ann", assert("9"), set("aud", "other"))),
		"by another key":     other.sign(claims("ann", assert("10"))),
		"a session of ours":  bob.JWT,
		"with its tail lost": good[:len(good)-8],
		"nothing":            "",
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) { refuse(t, stepUp(token), 422, "invalid_external_auth") })
	}
	refuse(t, stepUp(c.sign(claims("ann", assert("11"), set("scope", "user:basic")))), 422, "invalid_scopes")
	refuse(t, w.do("POST", "/externalAuth/signin", m{"jwt": other.sign(claims("ann"))}), 422, "invalid_external_auth")
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, stepUp(c.sign(claims("ann", assert("12")))), 403, "mfa_required")
	refuse(t, w.do("POST", "/externalAuth/signin", m{"jwt": c.sign(claims(""))}), 422, "invalid_external_auth")
	plain := newWorld(t)
	refuse(t, plain.do("POST", "/externalAuth/signin", m{"jwt": c.sign(claims("ann"))}), 422, "invalid_external_auth")
}
