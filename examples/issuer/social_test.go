package issuer_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/examples/oidc"
)

func TestSocialAccounts(t *testing.T) {
	provider, err := oidc.New(oidc.Config{Issuer: "https://social.example", ClientID: "wallet", ClientSecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	network := httptest.NewServer(provider.Handler())
	t.Cleanup(network.Close)
	w := newWorld(t, realNow, func(c *issuer.Config) {
		c.Social = map[string]issuer.Social{"google": {
			Issuer: "https://social.example", TokenURL: network.URL + "/token", ClientID: "wallet", ClientSecret: "secret", Key: provider.Key(),
		}}
	})
	w.pass(time.Since(w.clock()) + time.Second)
	redirect := w.url + "/providers/google/redirect"
	provider.Allow(redirect)
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	// away signs somebody in at the provider, and returns what the app's page is told.
	away := func(state, email string) m {
		t.Helper()
		if got := w.do("POST", "/providers/google/initAuth", m{"state": state, "redirectUrl": audience + "/back"}); got.Status != 200 {
			t.Fatalf("begin: %d %s", got.Status, got.Code)
		}
		q := url.Values{"client_id": {"wallet"}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {state}}
		res, err := stay.PostForm(network.URL+"/authorize?"+q.Encode(), url.Values{"email": {email}})
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		res, err = stay.Get(res.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		page, err := url.Parse(res.Header.Get("Location"))
		if err != nil || page.Host != "wallet.example" || page.Path != "/back" {
			t.Fatalf("sent to %s, %v", page, err)
		}
		return m{"code": page.Query().Get("dynamicOauthCode"), "state": page.Query().Get("dynamicOauthState")}
	}
	const one, two, three, four, five, six = "state-one-0000001", "state-two-0000002", "state-three-00003", "state-four-000004", "state-five-000005", "state-six-0000006"
	proof := away(one, "ann@social.example")
	ann := w.do("POST", "/providers/google/signIn", proof)
	if ann.Status != 200 || !ann.User.NewUser {
		t.Fatalf("sign in: %d %s", ann.Status, ann.Error)
	}
	refuse(t, w.do("POST", "/providers/google/signIn", proof), 422, "invalid_oauth")
	again := w.do("POST", "/providers/google/signIn", away(two, "ann@social.example"))
	if again.User.ID != ann.User.ID || again.User.NewUser {
		t.Errorf("again: %+v", again.User)
	}
	verify := func(state, email string, scopes ...string) answer {
		t.Helper()
		p := away(state, email)
		p["requestedScopes"] = scopes
		return w.do("POST", "/providers/google/verify", p, bearer(ann.JWT))
	}
	if got := verify(three, "ann@social.example", "wallet:export"); got.Status != 200 || w.verify(got.ElevatedAccessToken)["scope"] != "wallet:export" {
		t.Errorf("step up: %d %s", got.Status, got.Code)
	}
	refuse(t, verify(four, "bob@social.example", "wallet:export"), 422, "invalid_oauth")
	if got := verify(five, "bob@social.example"); got.Status != 200 || got.ElevatedAccessToken != "" {
		t.Errorf("link: %d %s", got.Status, got.Code)
	}
	if _, err := w.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, verify(six, "ann@social.example", "wallet:export"), 403, "mfa_required")
	// A page that is not the app's is no place to send somebody with a code.
	for _, page := range []string{"https://evil.example", audience + ".evil.example/back", "javascript:alert(1)", ""} {
		refuse(t, w.do("POST", "/providers/google/initAuth", m{"state": one, "redirectUrl": page}), 422, "invalid_redirect_url")
	}
	refuse(t, w.do("POST", "/providers/other/initAuth", m{"state": one, "redirectUrl": audience}), 422, "invalid_oauth")
	refuse(t, w.do("POST", "/providers/google/signIn", m{"code": "x", "state": "unknown-state-000"}), 422, "invalid_oauth")
}
