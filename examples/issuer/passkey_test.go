package issuer_test

import (
	"testing"
	"time"
)

const (
	registerPath = "/users/passkeys/register"
	passkeyPath  = "/users/mfa/auth/passkey"
)

// withPasskey signs somebody in and registers a passkey.
func withPasskey(t *testing.T, w *world, email string) (session answer, a *authenticator) {
	t.Helper()
	a = newAuthenticator(t)
	session = w.signIn(email)
	options := w.do("GET", registerPath, nil, bearer(session.JWT))
	if options.Status != 200 || options.Challenge == "" || options.RP.ID != "wallet.example" || options.ExcludeCredentials == nil ||
		options.Timeout == 0 || options.Attestation != "none" || len(options.PubKeyCredParams) == 0 {
		t.Fatalf("options: got %+v", options)
	}
	if got := w.do("POST", registerPath, a.register(options.Challenge), bearer(session.JWT)); got.Status != 200 || got.JWT == "" {
		t.Fatalf("register: got %d %s", got.Status, got.Code)
	}
	return session, a
}

func (w *world) challenge(session string) string {
	w.t.Helper()
	got := w.do("GET", "/users/passkeys/authenticate", nil, bearer(session))
	if got.Status != 200 || got.Challenge == "" || len(got.AllowCredentials) == 0 || got.RPID != "wallet.example" {
		w.t.Fatalf("options: got %+v", got)
	}
	return got.Challenge
}

func TestStepUpByPasskey(t *testing.T) {
	w := newWorld(t)
	ann, key := withPasskey(t, w, "ann@example.com")
	signed := key.sign(w.challenge(ann.JWT), "wallet:export")
	got := w.do("POST", passkeyPath, signed, bearer(ann.JWT))
	if claims := w.verify(got.ElevatedAccessToken); got.Status != 200 || claims["scope"] != "wallet:export" || claims["sub"] != ann.User.ID {
		t.Fatalf("got %d %s, claims %v", got.Status, got.Code, claims)
	}
	refuse(t, w.do("POST", passkeyPath, signed, bearer(ann.JWT)), 422, "invalid_verification")
	if check := w.do("POST", "/stepUp/check", m{"scope": "wallet:export"}, bearer(ann.JWT)); len(check.Credentials) != 1 ||
		check.Credentials[0].Format != "passkey" {
		t.Errorf("check: got %+v", check.Credentials)
	}
	body := w.proof("ann@example.com")
	body["requestedScopes"] = []string{"wallet:export"}
	refuse(t, w.do("POST", "/emailVerifications/verify", body, bearer(ann.JWT)), 403, "mfa_required")
}

func TestPasskeysThatDoNotVerify(t *testing.T) {
	w := newWorld(t)
	ann, key := withPasskey(t, w, "ann@example.com")
	bob, stranger := withPasskey(t, w, "bob@example.com")
	tests := map[string]func() m{
		"a challenge of somebody else": func() m { return key.sign(w.challenge(bob.JWT), "wallet:export") },
		"a made-up challenge":          func() m { return key.sign("AAAAAAAAAAAAAAAAAAAAAA", "wallet:export") },
		"a key of somebody else":       func() m { return stranger.sign(w.challenge(ann.JWT), "wallet:export") },
		"on another site": func() m {
			phished := *key
			phished.Origin = "https://wa11et.example"
			return phished.sign(w.challenge(ann.JWT), "wallet:export")
		},
		"for another party": func() m {
			phished := *key
			phished.Party = "wa11et.example"
			return phished.sign(w.challenge(ann.JWT), "wallet:export")
		},
		"a tampered signature": func() m {
			body := key.sign(w.challenge(ann.JWT), "wallet:export")
			body["response"].(map[string]any)["signature"] = b64([]byte("nonsense"))
			return body
		},
		"an old challenge": func() m {
			challenge := w.challenge(ann.JWT)
			w.pass(6 * time.Minute)
			return key.sign(challenge, "wallet:export")
		},
		"no key": func() m { w.challenge(ann.JWT); return m{"response": m{}} },
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			refuse(t, w.do("POST", passkeyPath, body(), bearer(ann.JWT)), 422, "invalid_verification")
		})
	}
	t.Run("after a failure the challenge is spent", func(t *testing.T) {
		challenge := w.challenge(ann.JWT)
		refuse(t, w.do("POST", passkeyPath, stranger.sign(challenge), bearer(ann.JWT)), 422, "invalid_verification")
		refuse(t, w.do("POST", passkeyPath, key.sign(challenge), bearer(ann.JWT)), 422, "invalid_verification")
	})
	t.Run("the right one still does", func(t *testing.T) {
		if got := w.do("POST", passkeyPath, key.sign(w.challenge(ann.JWT)), bearer(ann.JWT)); got.Status != 200 {
			t.Errorf("got %d %s", got.Status, got.Code)
		}
	})
}

// A stolen session must not make itself a factor and take an MFA token for it.
func TestAPasskeyBesideAnotherFactorBringsNoMFAToken(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	for i, want := range []bool{true, false} {
		options := w.do("GET", registerPath, nil, bearer(ann.JWT))
		body := newAuthenticator(t).register(options.Challenge)
		body["createMfaToken"] = m{"singleUse": true}
		if got := w.do("POST", registerPath, body, bearer(ann.JWT)); got.Status != 200 || got.MFAToken != "" != want {
			t.Errorf("passkey %d: got %d %s, a token: %v", i, got.Status, got.Code, got.MFAToken != "")
		}
	}
}

// Which of two keys with one secret is the thief's, nobody knows: both are refused.
func TestACopiedPasskeyIsLocked(t *testing.T) {
	w := newWorld(t)
	ann, key := withPasskey(t, w, "ann@example.com")
	stolen := *key
	if got := w.do("POST", passkeyPath, key.sign(w.challenge(ann.JWT)), bearer(ann.JWT)); got.Status != 200 {
		t.Fatalf("got %d %s", got.Status, got.Code)
	}
	for _, k := range []*authenticator{&stolen, key} {
		refuse(t, w.do("POST", passkeyPath, k.sign(w.challenge(ann.JWT)), bearer(ann.JWT)), 422, "invalid_verification")
	}
}

func TestPasskeysAreListedAndDeleted(t *testing.T) {
	w := newWorld(t)
	ann, key := withPasskey(t, w, "ann@example.com")
	bob := w.signIn("bob@example.com")
	list := w.do("GET", "/users/passkeys", nil, bearer(ann.JWT))
	if list.Count != 1 || len(list.Passkeys) != 1 || list.Passkeys[0].CredentialID != key.register("AAAA")["id"] || list.Passkeys[0].CreatedAt == "" {
		t.Fatalf("got %+v", list)
	}
	options := w.do("GET", registerPath, nil, bearer(bob.JWT))
	refuse(t, w.do("POST", registerPath, key.register(options.Challenge), bearer(bob.JWT)), 422, "invalid_verification")

	forget := m{"passkeyId": list.Passkeys[0].ID}
	refuse(t, w.do("DELETE", "/users/passkeys", forget, bearer(bob.JWT)), 422, "mfa_device_not_found")
	if got := w.do("DELETE", "/users/passkeys", forget, bearer(ann.JWT)); got.Status != 204 {
		t.Errorf("delete: got %d %s", got.Status, got.Code)
	}
	refuse(t, w.do("GET", "/users/passkeys/authenticate", nil, bearer(ann.JWT)), 422, "mfa_device_not_found")
	options = w.do("GET", registerPath, nil, bearer(bob.JWT))
	if got := w.do("POST", registerPath, key.register(options.Challenge), bearer(bob.JWT)); got.Status != 200 {
		t.Errorf("the freed key: got %d %s", got.Status, got.Code)
	}
}

func TestADeletedUsersPasskeyIsFree(t *testing.T) {
	w := newWorld(t)
	ann, key := withPasskey(t, w, "ann@example.com")
	if got := w.do("DELETE", "/users", nil, bearer(ann.JWT)); got.Status != 204 {
		t.Fatalf("delete: got %d %s", got.Status, got.Code)
	}
	bob := w.signIn("bob@example.com")
	options := w.do("GET", registerPath, nil, bearer(bob.JWT))
	if got := w.do("POST", registerPath, key.register(options.Challenge), bearer(bob.JWT)); got.Status != 200 {
		t.Errorf("got %d %s", got.Status, got.Code)
	}
}

func TestPasskeysNeedAWholeSession(t *testing.T) {
	w := newWorld(t)
	w.signIn("ann@example.com")
	pending := w.signIn("ann@example.com", w.from(newDevice(t)))
	key := newAuthenticator(t)
	for _, call := range []struct {
		method, path string
		body         any
	}{
		{"GET", registerPath, nil}, {"POST", registerPath, key.register("AAAA")}, {"GET", "/users/passkeys/authenticate", nil},
		{"DELETE", "/users/passkeys", m{"passkeyId": "any"}},
	} {
		refuse(t, w.do(call.method, call.path, call.body, bearer(pending.JWT)), 401, "unauthorized")
	}
}
