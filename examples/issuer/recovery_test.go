package issuer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

const recoveryPath = "/users/mfa/recovery"

func TestRecoveryCodesWorkOnce(t *testing.T) {
	w := newWorld(t)
	session, _ := enrolled(t, w)
	codes := w.do("GET", recoveryPath, nil, bearer(session)).RecoveryCodes
	if len(codes) != 8 {
		t.Fatalf("got codes %v", codes)
	}
	use := func(token, code string) answer {
		return w.do("POST", "/users/mfa/auth/recovery", m{"code": code, "requestedScopes": []string{"wallet:export"}}, bearer(token))
	}
	if got := use(session, codes[0]); got.Status != 200 || w.verify(got.ElevatedAccessToken)["scope"] != "wallet:export" {
		t.Errorf("got %d %s", got.Status, got.Code)
	}
	refuse(t, use(session, codes[0]), 422, "mfa_invalid_code")
	refuse(t, use(session, ""), 422, "mfa_invalid_code")

	bob := w.signIn("bob@example.com")
	refuse(t, use(bob.JWT, codes[1]), 422, "mfa_device_not_found")
	if _, err := w.issuer.EnrolTOTP(bob.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, use(bob.JWT, codes[1]), 422, "mfa_invalid_code")

	left := w.do("GET", recoveryPath, nil, bearer(session))
	if left.Count != 7 || slices.Contains(left.RecoveryCodes, codes[0]) || !slices.Contains(left.RecoveryCodes, codes[1]) {
		t.Errorf("got %d %v", left.Count, left.RecoveryCodes)
	}
	renewed := w.do("POST", recoveryPath, nil, bearer(session))
	if renewed.Count != 8 || slices.Contains(renewed.RecoveryCodes, codes[1]) {
		t.Errorf("renewed: got %d %v", renewed.Count, renewed.RecoveryCodes)
	}
	refuse(t, use(session, codes[1]), 422, "mfa_invalid_code")
}

func TestAcknowledgedCodesAreNotShown(t *testing.T) {
	w := newWorld(t)
	session, _ := enrolled(t, w)
	codes := w.do("GET", recoveryPath, nil, bearer(session)).RecoveryCodes
	got := w.do("PUT", "/users", m{"mfaBackupCodeAcknowledgement": "complete"}, bearer(session))
	if got.Status != 200 || got.User.MFABackupCodeAcknowledgement != "complete" || got.NextView != "done" {
		t.Errorf("got %d %+v", got.Status, got.User)
	}
	if after := w.do("GET", recoveryPath, nil, bearer(session)); after.Count != 8 || len(after.RecoveryCodes) != 0 {
		t.Errorf("got %d %v", after.Count, after.RecoveryCodes)
	}
	if got := w.do("POST", "/users/mfa/auth/recovery", m{"code": codes[3]}, bearer(session)); got.Status != 200 {
		t.Errorf("an acknowledged code: got %d %s", got.Status, got.Code)
	}
}

func TestRecoveryNeedsAFactorAndAWholeSession(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	refuse(t, w.do("GET", recoveryPath, nil, bearer(ann.JWT)), 422, "mfa_device_not_found")
	pending := w.signIn("ann@example.com", w.from(newDevice(t)))
	refuse(t, w.do("POST", recoveryPath, nil, bearer(pending.JWT)), 401, "unauthorized")

	bob := w.signIn("bob@example.com")
	if _, err := w.issuer.EnrolTOTP(bob.User.ID); err != nil {
		t.Fatal(err)
	}
	codes := w.do("GET", recoveryPath, nil, bearer(bob.JWT)).RecoveryCodes
	w.do("DELETE", "/users/mfa/"+w.do("GET", "/users/mfa", nil, bearer(bob.JWT)).Devices[0].ID, nil, bearer(bob.JWT))
	refuse(t, w.do("POST", "/users/mfa/auth/recovery", m{"code": codes[0]}, bearer(bob.JWT)), 422, "mfa_device_not_found")
}

func TestAFactorCountsFromItsFirstCode(t *testing.T) {
	w := newWorld(t)
	ann := w.signIn("ann@example.com")
	begun := w.do("GET", "/users/mfa/register/totp", nil, bearer(ann.JWT))
	if w.do("GET", "/users/mfa/methods?verifiedOnly=true", nil, bearer(ann.JWT)).UserHasVerifiedMFAMethods {
		t.Error("a device counts before its first code")
	}
	if got := w.do("POST", "/users/mfa/auth/totp", m{"id": begun.ID, "code": w.code(begun.Secret)}, bearer(ann.JWT)); got.Status != 200 {
		t.Fatalf("got %d %s", got.Status, got.Code)
	}
	methods := w.do("GET", "/users/mfa/methods?verifiedOnly=true", nil, bearer(ann.JWT))
	if !methods.UserHasVerifiedMFAMethods || len(methods.Devices) != 1 || methods.Passkeys == nil {
		t.Errorf("got %+v", methods)
	}
}

func TestTheDefaultComesFirst(t *testing.T) {
	w := newWorld(t)
	ann, _ := withPasskey(t, w, "ann@example.com")
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	first := func() string {
		got := w.do("POST", "/stepUp/check", m{"scope": "wallet:export"}, bearer(ann.JWT))
		if len(got.Credentials) != 2 || got.DefaultCredentialID != got.Credentials[0].ID {
			t.Errorf("got %+v", got.Credentials)
		}
		return got.Credentials[0].Format
	}
	for _, format := range []string{"totp", "passkey"} {
		check := w.do("POST", "/stepUp/check", m{"scope": "wallet:export"}, bearer(ann.JWT)).Credentials
		n := slices.IndexFunc(check, func(c struct{ ID, Format string }) bool { return c.Format == format })
		if got := w.do("PUT", "/users/mfa/"+check[n].ID, m{"default": true}, bearer(ann.JWT)); got.Status != 204 {
			t.Errorf("set: got %d %s", got.Status, got.Code)
		}
		if got := first(); got != format {
			t.Errorf("got %s first, want %s", got, format)
		}
	}
	refuse(t, w.do("PUT", "/users/mfa/unknown", nil, bearer(ann.JWT)), 422, "mfa_device_not_found")
}

func TestWhoMayAskAboutMFATokens(t *testing.T) {
	closed := newWorld(t, func(c *issuer.Config) { c.IntrospectionSecret = "" })
	for _, w := range []*world{closed, newWorld(t)} {
		for _, edits := range [][]headers{nil, {bearer("")}, {bearer("guess")}} {
			refuse(t, w.do("POST", "/mfaTokens/introspect", "token=x", edits...), 401, "unauthorized")
		}
	}
}

func TestOldMFATokens(t *testing.T) {
	w := newWorld(t)
	session, secret := enrolled(t, w)
	mint := func() string {
		t.Helper()
		got := w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(secret), "createMfaToken": m{"singleUse": true}}, bearer(session))
		if got.Status != 200 || got.MFAToken == "" || got.ElevatedAccessToken != "" {
			t.Fatalf("got %d %s, %q", got.Status, got.Code, got.MFAToken)
		}
		w.pass(30 * time.Second)
		return got.MFAToken
	}
	token := mint()
	sub := w.do("GET", "/users", nil, bearer(session)).ID
	if got := w.introspect("token=" + token); got["active"] != true || got["sub"] != sub || got["iat"] == nil || got["exp"] == nil ||
		got["token_type"] != "mfa_token" || got["environment_id"] != environment {
		t.Errorf("got %v", got)
	}
	for _, worthless := range []string{"token=mfa_1", "token=" + session} {
		if got := w.introspect(worthless); got["active"] != false || len(got) != 1 {
			t.Errorf("%s: got %v", worthless, got)
		}
	}
	if got := w.introspect("token="); got["code"] != "invalid_request" {
		t.Errorf("no token: got %v", got)
	}
	other := mint()
	w.pass(31 * 24 * time.Hour)
	if got := w.introspect("token=" + other); got["active"] != false {
		t.Errorf("after the session: got %v", got)
	}
	bob := w.signIn("bob@example.com")
	bobs, err := w.issuer.EnrolTOTP(bob.User.ID)
	if err != nil {
		t.Fatal(err)
	}
	last := w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(bobs), "createMfaToken": m{"singleUse": false}}, bearer(bob.JWT))
	if got := w.introspect("token=" + last.MFAToken); got["active"] != true {
		t.Errorf("before signing out: got %v", got)
	}
	w.pass(30 * time.Second)
	pending := w.signIn("bob@example.com", w.from(newDevice(t)))
	body := m{"code": w.code(bobs), "createMfaToken": m{"singleUse": true}}
	refuse(t, w.do("POST", "/users/mfa/auth/totp", body, bearer(pending.JWT)), 403, "forbidden")
	w.do("POST", "/revoke", nil, bearer(bob.JWT))
	if got := w.introspect("token=" + last.MFAToken); got["active"] != false {
		t.Errorf("after signing out: got %v", got)
	}
}
