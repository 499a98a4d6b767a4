package issuer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

func TestFirstSignInMakesAUser(t *testing.T) {
	w := newWorld(t)
	first := w.signIn("Ann@Example.com ")
	if !first.User.NewUser || first.User.Email != "ann@example.com" || first.User.Scope != "user:basic" {
		t.Errorf("got user %+v", first.User)
	}
	if got := w.do("GET", "/session", nil, bearer(first.JWT)); got.Status != 204 {
		t.Errorf("session check: got %d, want 204", got.Status)
	}
	if got := w.do("GET", "/session", nil, header("Cookie", "DYNAMIC_JWT_TOKEN="+first.JWT)); got.Status != 204 {
		t.Errorf("session check by cookie: got %d, want 204", got.Status)
	}
	second := w.signIn("ann@example.com")
	if second.User.ID != first.User.ID || second.User.NewUser {
		t.Errorf("got another user %+v", second.User)
	}
}

func TestCodesOfMails(t *testing.T) {
	w := newWorld(t)
	refuse(t, w.do("POST", "/emailVerifications/create", m{"email": "nobody"}), 422, "invalid_email")

	wrong := w.proof("ann@example.com")
	wrong["verificationToken"] = "000000"
	for range 5 {
		refuse(t, w.do("POST", "/emailVerifications/signin", wrong), 422, "wrong_email_verification_token")
	}
	wrong["verificationToken"] = demoCode
	refuse(t, w.do("POST", "/emailVerifications/signin", wrong), 422, "too_many_email_verification_attempts")
	refuse(t, w.do("POST", "/emailVerifications/signin", w.proof("ann@example.com")), 422, "too_many_email_verification_attempts")
	w.signIn("bob@example.com")
	w.pass(11 * time.Minute)

	used := w.proof("ann@example.com")
	if got := w.do("POST", "/emailVerifications/signin", used); got.Status != 200 {
		t.Fatalf("sign in: %d %s", got.Status, got.Code)
	}
	refuse(t, w.do("POST", "/emailVerifications/signin", used), 422, "invalid_email_verification")

	late := w.proof("ann@example.com")
	w.pass(11 * time.Minute)
	refuse(t, w.do("POST", "/emailVerifications/signin", late), 422, "invalid_email_verification")
}

func TestDrawnCodesGoToTheMailbox(t *testing.T) {
	var delivered issuer.Mail
	w := newWorld(t, func(c *issuer.Config) {
		c.Code = ""
		c.Deliver = func(m issuer.Mail) { delivered = m }
	})
	proof := w.proof("ann@example.com")
	mail, ok := w.issuer.Mail("ann@example.com")
	if !ok || len(mail.Code) != 6 || mail != delivered {
		t.Fatalf("got mail %+v, delivered %+v", mail, delivered)
	}
	proof["verificationToken"] = mail.Code
	if got := w.do("POST", "/emailVerifications/signin", proof); got.Status != 200 {
		t.Errorf("sign in: %d %s", got.Status, got.Code)
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	first := w.signIn("ann@example.com")
	w.pass(2 * time.Hour)
	if got := w.do("GET", "/session", nil, bearer(first.JWT)); got.Status != 401 {
		t.Errorf("expired session: got %d, want 401", got.Status)
	}
	next := w.do("POST", "/refresh", nil, bearer(first.JWT))
	if next.Status != 200 || next.User.SessionID == first.User.SessionID || next.User.ID != first.User.ID {
		t.Fatalf("refresh: got %d, user %+v", next.Status, next.User)
	}
	if got := w.do("GET", "/session", nil, bearer(next.JWT)); got.Status != 204 {
		t.Errorf("refreshed session: got %d, want 204", got.Status)
	}
	w.pass(29 * 24 * time.Hour)
	last := w.do("POST", "/refresh", nil, bearer(next.JWT))
	if last.Status != 200 {
		t.Fatalf("refresh on day 29: got %d", last.Status)
	}
	w.pass(24 * time.Hour)
	refuse(t, w.do("POST", "/refresh", nil, bearer(last.JWT)), 401, "unauthorized")
}

func TestSignOutEndsTheWholeChain(t *testing.T) {
	w := newWorld(t)
	first := w.signIn("ann@example.com")
	next := w.do("POST", "/refresh", nil, bearer(first.JWT))
	if got := w.do("POST", "/revoke", nil, bearer(next.JWT)); got.Status != 204 {
		t.Fatalf("revoke: got %d", got.Status)
	}
	for name, token := range map[string]string{"first": first.JWT, "next": next.JWT} {
		if got := w.do("GET", "/session", nil, bearer(token)); got.Status != 401 {
			t.Errorf("%s session: got %d, want 401", name, got.Status)
		}
		refuse(t, w.do("POST", "/refresh", nil, bearer(token)), 401, "unauthorized")
	}
}

func TestSessionsThatAreNone(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	sign := func(edit issuer.Edit) string {
		token, err := w.issuer.SessionToken("ann", edit)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	foreign, err := other.issuer.SessionToken("ann")
	if err != nil {
		t.Fatal(err)
	}
	elevated, err := w.issuer.ElevatedToken("ann", []string{"wallet:export"}, true)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"nothing":             "",
		"not a token":         "a.b.c",
		"another issuer's":    foreign,
		"an elevated token":   elevated,
		"another audience":    sign(func(c map[string]any) { c["aud"] = "https://other.example" }),
		"two audiences":       sign(func(c map[string]any) { c["aud"] = []string{audience, "https://other.example"} }),
		"another environment": sign(func(c map[string]any) { c["environment_id"] = "other" }),
		"expired":             sign(func(c map[string]any) { c["exp"] = w.clock().Add(-time.Second).Unix() }),
		"no expiry":           sign(func(c map[string]any) { delete(c, "exp") }),
		"no user":             sign(func(c map[string]any) { delete(c, "sub") }),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			refuse(t, w.do("GET", "/session", nil, bearer(token)), 401, "unauthorized")
		})
	}
}

func TestBodies(t *testing.T) {
	w := newWorld(t)
	big := `{"email":"` + strings.Repeat("a", 70_000) + `"}`
	tests := []struct {
		name, body string
		status     int
	}{
		{"no body", "", 400},
		{"no JSON", "{", 400},
		{"wrong type", `{"email":1}`, 400},
		{"unknown members are let pass", `{"email":"a@b.c","captchaToken":"x"}`, 200},
		{"too large", big, 413},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := w.do("POST", "/emailVerifications/create", test.body); got.Status != test.status {
				t.Errorf("got %d, want %d", got.Status, test.status)
			}
		})
	}
}
