package issuer_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// enrolled signs ann in and gives her an authenticator app through the endpoints.
func enrolled(t *testing.T, w *world) (token, secret string) {
	t.Helper()
	ann := w.signIn("ann@example.com")
	begun := w.do("GET", "/users/mfa/register/totp", nil, bearer(ann.JWT))
	if begun.Status != 200 || begun.Secret == "" || begun.URI == "" {
		t.Fatalf("begin enrolment: got %+v", begun)
	}
	refuse(t, w.do("POST", "/users/mfa/register/totp", m{"type": "totp", "code": "1"}, bearer(ann.JWT)), 422, "mfa_invalid_code")
	done := w.do("POST", "/users/mfa/register/totp", m{"type": "totp", "code": w.code(begun.Secret)}, bearer(ann.JWT))
	if done.Status != 200 || !done.Verified || done.ID != begun.ID {
		t.Fatalf("finish enrolment: got %+v", done)
	}
	if got, err := w.issuer.TOTPSecret(ann.User.ID); err != nil || got != begun.Secret {
		t.Errorf("TOTPSecret: got %q, %v, want %q", got, err, begun.Secret)
	}
	w.pass(30 * time.Second) // the code that finished the enrolment is spent
	return ann.JWT, begun.Secret
}

// Dynamic's SDK finishes an enrolment by the call that steps up.
func TestAFirstCodeProvesTheApp(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	begun := w.do("GET", "/users/mfa/register/totp", nil, bearer(ann.JWT))
	prove := m{"id": begun.ID, "code": w.code(begun.Secret)}
	asks := m{"id": begun.ID, "code": w.code(begun.Secret), "requestedScopes": []string{"wallet:export"}}
	refuse(t, w.do("POST", "/users/mfa/auth/totp", asks, bearer(ann.JWT)), 422, "mfa_device_not_found")
	refuse(t, w.do("POST", "/users/mfa/auth/totp", m{"id": begun.ID, "code": "000"}, bearer(ann.JWT)), 422, "mfa_invalid_code")
	if got := w.do("POST", "/users/mfa/auth/totp", prove, bearer(ann.JWT)); got.Status != 200 || got.ElevatedAccessToken != "" {
		t.Fatalf("got %d %s, elevated token %q", got.Status, got.Code, got.ElevatedAccessToken)
	}
	refuse(t, w.do("POST", "/users/mfa/auth/totp", prove, bearer(ann.JWT)), 422, "mfa_invalid_code")
	w.pass(30 * time.Second)
	asks["code"] = w.code(begun.Secret)
	if got := w.do("POST", "/users/mfa/auth/totp", asks, bearer(ann.JWT)); got.Status != 200 || got.ElevatedAccessToken == "" {
		t.Errorf("got %d %s without an elevated token", got.Status, got.Code)
	}
}

func TestStepUpByTOTP(t *testing.T) {
	tests := []struct {
		name      string
		scopes    []string
		scope     string
		singleUse bool
		lifetime  time.Duration
	}{
		{"a wallet scope", []string{"wallet:export"}, "wallet:export", true, 5 * time.Minute},
		{"a credential scope", []string{"credential:link"}, "credential:link", false, 10 * time.Minute},
		{"several, one twice", []string{"user:update", "credential:link", "user:update"}, "credential:link user:update", false,
			10 * time.Minute},
		{"mixed", []string{"wallet:sign", "credential:link"}, "credential:link wallet:sign", true, 5 * time.Minute},
		{"transfer of a business account", []string{"business_account:transfer_ownership"}, "business_account:transfer_ownership",
			true, 5 * time.Minute},
	}
	w := newWorld(t)
	session, secret := enrolled(t, w)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.pass(30 * time.Second)
			got := w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(secret), "requestedScopes": test.scopes}, bearer(session))
			if got.Status != 200 {
				t.Fatalf("got %d %s", got.Status, got.Code)
			}
			claims := w.verify(got.ElevatedAccessToken)
			if claims["scope"] != test.scope || claims["singleUse"] != test.singleUse {
				t.Errorf("got scope %q, singleUse %v", claims["scope"], claims["singleUse"])
			}
			if claims["sub"] != got.User.ID || claims["environment_id"] != environment || claims["jti"] == "" {
				t.Errorf("got claims %v", claims)
			}
			if got := claims["exp"].(float64) - claims["iat"].(float64); got != test.lifetime.Seconds() {
				t.Errorf("lifetime: got %v s, want %v", got, test.lifetime)
			}
			if after := w.do("GET", "/session", nil, bearer(got.JWT)); after.Status != 204 {
				t.Errorf("session after the step-up: got %d", after.Status)
			}
		})
	}
}

func TestCodesOfApps(t *testing.T) {
	w := newWorld(t)
	session, secret := enrolled(t, w)
	try := func(code string) answer {
		return w.do("POST", "/users/mfa/auth/totp", m{"code": code, "requestedScopes": []string{"wallet:export"}}, bearer(session))
	}
	code := w.code(secret)
	if got := try(code); got.Status != 200 || got.ElevatedAccessToken == "" {
		t.Fatalf("got %d %s", got.Status, got.Code)
	}
	refuse(t, try(code), 422, "mfa_invalid_code")

	w.pass(30 * time.Second)
	refuse(t, try(code), 422, "mfa_invalid_code")
	next := w.code(secret)
	w.pass(30 * time.Second)
	if got := try(next); got.Status != 200 {
		t.Errorf("the code of the step before: got %d %s", got.Status, got.Code)
	}
	stale := w.code(secret)
	w.pass(time.Minute)
	refuse(t, try(stale), 422, "mfa_invalid_code")
	for range 4 {
		refuse(t, try("000"), 422, "mfa_invalid_code")
	}
	refuse(t, try(w.code(secret)), 429, "mfa_rate_limited")
	w.pass(5 * time.Minute)
	if got := try(w.code(secret)); got.Status != 200 {
		t.Errorf("after the lock: got %d %s", got.Status, got.Code)
	}
}

func TestACodeIsSpentOnceByMany(t *testing.T) {
	w := newWorld(t)
	session, secret := enrolled(t, w)
	body := m{"code": w.code(secret), "requestedScopes": []string{"wallet:export"}}
	var wins atomic.Int32
	var wait sync.WaitGroup
	for range 4 { // fewer than lock the device
		wait.Go(func() {
			if w.do("POST", "/users/mfa/auth/totp", body, bearer(session)).Status == 200 {
				wins.Add(1)
			}
		})
	}
	wait.Wait()
	if got := wins.Load(); got != 1 {
		t.Errorf("got %d tokens for one code", got)
	}
}

func TestWhatCannotBeRequested(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	secret, err := w.issuer.EnrolTOTP(ann.User.ID)
	if err != nil {
		t.Fatal(err)
	}
	pending := w.signIn("ann@example.com", w.from(newDevice(t)))
	tests := []struct {
		name, token, scope, code string
		status                   int
	}{
		{"a session scope", ann.JWT, "user:basic", "invalid_scopes", 422},
		{"a console scope", ann.JWT, "console:user:delete", "invalid_scopes", 422},
		{"two in one", ann.JWT, "wallet:export user:basic", "invalid_scopes", 422},
		{"on an unregistered device", pending.JWT, "wallet:export", "forbidden", 403},
		{"without a session", "", "wallet:export", "unauthorized", 401},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := m{"code": w.code(secret), "requestedScopes": []string{test.scope}}
			refuse(t, w.do("POST", "/users/mfa/auth/totp", body, bearer(test.token)), test.status, test.code)
		})
	}
	t.Run("none", func(t *testing.T) {
		got := w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(secret)}, bearer(ann.JWT))
		if got.Status != 200 || got.ElevatedAccessToken != "" {
			t.Errorf("got %d, elevated token %q", got.Status, got.ElevatedAccessToken)
		}
	})
	for _, call := range [][2]string{{"GET", "/users/mfa/register/totp"}, {"DELETE", "/users/mfa/any"}} {
		refuse(t, w.do(call[0], call[1], nil, bearer(pending.JWT)), 401, "unauthorized")
	}
}

func TestStepUpByMail(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	verify := func(email string) answer {
		body := w.proof(email)
		body["requestedScopes"] = []string{"credential:link"}
		return w.do("POST", "/emailVerifications/verify", body, bearer(ann.JWT))
	}
	got := verify("ann@example.com")
	if got.Status != 200 || w.verify(got.ElevatedAccessToken)["scope"] != "credential:link" {
		t.Errorf("got %d %s", got.Status, got.Code)
	}
	refuse(t, verify("mallory@example.com"), 422, "invalid_verification")

	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, verify("ann@example.com"), 403, "mfa_required")
}

func TestLinkingAnAddress(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.signIn("ann@example.com"), w.signIn("bob@example.com")
	linked := w.do("POST", "/emailVerifications/verify", w.proof("ann@work.example"), bearer(ann.JWT))
	if linked.Status != 200 || len(linked.User.VerifiedCredentials) != 2 || linked.ElevatedAccessToken != "" {
		t.Errorf("got %d, user %+v", linked.Status, linked.User)
	}
	refuse(t, w.do("POST", "/emailVerifications/verify", w.proof("ann@work.example"), bearer(bob.JWT)), 422, "email_already_exists")
	if got := w.signIn("ann@work.example"); got.User.ID != ann.User.ID {
		t.Errorf("the linked address signs in %s, want %s", got.User.ID, ann.User.ID)
	}
}

func TestStepUpCheckNamesWhatTheUserHas(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	check := func() answer { return w.do("POST", "/stepUp/check", m{"scope": "wallet:export"}, bearer(ann.JWT)) }
	if got := check(); !got.IsRequired || len(got.Credentials) != 1 || got.Credentials[0].Format != "email" {
		t.Errorf("got %+v", got.Credentials)
	}
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	got := check()
	if len(got.Credentials) != 1 || got.Credentials[0].Format != "totp" || got.DefaultCredentialID != got.Credentials[0].ID {
		t.Errorf("got %+v, default %q", got.Credentials, got.DefaultCredentialID)
	}
	refuse(t, w.do("POST", "/stepUp/check", m{"scope": "anything"}, bearer(ann.JWT)), 422, "invalid_scopes")
}

func TestDevicesOfMFA(t *testing.T) {
	w := newWorld(t)
	session, secret := enrolled(t, w)
	list := w.do("GET", "/users/mfa", nil, bearer(session))
	if list.Count != 1 || !list.Devices[0].Verified {
		t.Fatalf("got %+v", list.Devices)
	}
	refuse(t, w.do("DELETE", "/users/mfa/unknown", nil, bearer(session)), 422, "mfa_device_not_found")
	if got := w.do("DELETE", "/users/mfa/"+list.Devices[0].ID, nil, bearer(session)); got.Status != 204 {
		t.Errorf("delete: got %d %s", got.Status, got.Code)
	}
	refuse(t, w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(secret)}, bearer(session)), 422, "mfa_device_not_found")
	if _, err := w.issuer.TOTPSecret("nobody"); err == nil {
		t.Error("TOTPSecret found an app that nobody has")
	}
}
