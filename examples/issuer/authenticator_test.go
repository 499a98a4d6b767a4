package issuer_test

import (
	"encoding/base64"
	"testing"

	"github.com/stepward/stepward/examples/issuer"
)

// authenticator is one whose calls do not fail.
type authenticator struct {
	issuer.Authenticator
	t *testing.T
}

func newAuthenticator(t *testing.T) *authenticator {
	t.Helper()
	a, err := issuer.NewAuthenticator(audience, "wallet.example")
	if err != nil {
		t.Fatal(err)
	}
	return &authenticator{*a, t}
}

func (a *authenticator) register(challenge string) m { return a.made(a.Register(challenge)) }

func (a *authenticator) sign(challenge string, scopes ...string) m {
	return a.made(a.Sign(challenge, scopes...))
}

func (a *authenticator) made(body map[string]any, err error) m {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
	return body
}

var b64 = base64.RawURLEncoding.EncodeToString
