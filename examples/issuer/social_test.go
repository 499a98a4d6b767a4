package issuer_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/examples/oidc"
)

const verifier = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq"

// social is a world whose people sign in at a provider of ours.
type social struct {
	*world
	states int
}

func newSocial(t *testing.T) *social {
	t.Helper()
	s := &social{}
	var provider http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	redirectURL := audience + "/api/v0/sdk/" + environment + "/providers/github/redirect"
	s.world = newWorld(t, func(c *issuer.Config) {
		c.Social = map[string]issuer.Social{"github": {
			Issuer: server.URL, AuthorizationURL: server.URL + oidc.PathAuthorize,
			TokenURL: server.URL + oidc.PathToken, JWKSURL: server.URL + oidc.PathKeys,
			ClientID: "wallet", ClientSecret: "s3cret", RedirectURL: redirectURL,
		}, "other": {}}
	})
	p, err := oidc.New(oidc.Config{
		Dir: t.TempDir(), URL: server.URL, ClientID: "wallet", ClientSecret: "s3cret", Redirects: []string{redirectURL}, Now: s.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	provider = p.Handler()
	return s
}

func (s *social) follow(method, address string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader("email=ann%40social.example"))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

// come goes through a sign-in as a browser with the SDK does, and returns the body that ends it.
func (s *social) come() m {
	s.t.Helper()
	s.states++
	state := strings.Repeat("s", 31) + string(rune('a'+s.states))
	begun := s.do("POST", "/providers/github/initAuth", m{"state": state, "redirectUrl": audience + "/home?tab=1"})
	if begun.Status != 204 {
		s.t.Fatalf("begin: got %d %s", begun.Status, begun.Code)
	}
	p := s.do("GET", "/settings", nil).Providers[0].(map[string]any) // in the order of their names
	query := url.Values{"client_id": {p["clientId"].(string)}, "redirect_uri": {p["redirectUrl"].(string)}, "response_type": {"code"},
		"state": {state}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}, "scope": {p["scopes"].(string)}}
	back, err := s.follow("POST", p["baseAuthUrl"].(string)+"?"+query.Encode()).Location()
	if err != nil {
		s.t.Fatal(err)
	}
	home, err := s.follow("GET", s.url+"/providers/github/redirect?"+back.RawQuery).Location()
	if err != nil || home.Host != "wallet.example" || home.Path != "/home" || home.Query().Get("tab") != "1" {
		s.t.Fatalf("got %v, %v", home, err)
	}
	if got := home.Query().Get("dynamicOauthState"); got != state {
		s.t.Errorf("got state %q", got)
	}
	return m{"state": state, "code": home.Query().Get("dynamicOauthCode"), "codeVerifier": verifier}
}

func TestSocialSignInAndStepUp(t *testing.T) {
	s := newSocial(t)
	body := s.come()
	ann := s.do("POST", "/providers/github/signIn", body, s.from(newDevice(t)))
	if ann.Status != 200 || !ann.User.NewUser || ann.User.VerifiedCredentials[0].Format != "oauth" {
		t.Fatalf("sign in: got %d %s %+v", ann.Status, ann.Code, ann.User)
	}
	refuse(t, s.do("POST", "/providers/github/signIn", body), 422, "invalid_verification")

	stepUp := func(token string) answer {
		body := s.come()
		body["requestedScopes"] = []string{"wallet:export"}
		return s.do("POST", "/providers/github/verify", body, bearer(token))
	}
	got := stepUp(ann.JWT)
	if s.verify(got.ElevatedAccessToken)["scope"] != "wallet:export" {
		t.Errorf("step-up: got %d %s", got.Status, got.Code)
	}
	again := s.do("POST", "/providers/github/signIn", s.come(), s.from(newDevice(t)))
	if mail, _ := s.issuer.Mail("ann@social.example"); again.User.Scope != "device:register" || mail.Link == "" {
		t.Errorf("unknown device: scope %q, mail %+v", again.User.Scope, mail)
	}
	bob := s.signIn("bob@example.com")
	refuse(t, stepUp(bob.JWT), 422, "invalid_verification")
	refuse(t, s.do("POST", "/providers/github/verify", s.come(), bearer(bob.JWT)), 422, "social_account_already_exists")
	if _, err := s.issuer.EnrolTOTP(ann.User.ID); err != nil {
		t.Fatal(err)
	}
	refuse(t, stepUp(ann.JWT), 403, "mfa_required")
}

func TestSocialSignInsThatAreNotBelieved(t *testing.T) {
	s := newSocial(t)
	edits := map[string]func(body m){
		"another verifier":         func(b m) { b["codeVerifier"] = strings.Repeat("b", 43) },
		"no verifier":              func(b m) { delete(b, "codeVerifier") },
		"a code of another state":  func(b m) { b["code"] = s.come()["code"] },
		"a state that nobody drew": func(b m) { b["state"] = strings.Repeat("z", 32) },
		"no code":                  func(b m) { delete(b, "code") },
		"too late":                 func(m) { s.pass(11 * time.Minute) },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			body := s.come()
			edit(body)
			refuse(t, s.do("POST", "/providers/github/signIn", body), 422, "invalid_verification")
		})
	}
	t.Run("used before", func(t *testing.T) {
		body := s.come()
		if got := s.do("POST", "/providers/github/signIn", body); got.Status != 200 {
			t.Fatalf("got %d %s", got.Status, got.Code)
		}
		again := "/providers/github/redirect?code=c&state=" + body["state"].(string)
		refuse(t, s.do("GET", again, nil), 422, "invalid_verification")
		if got := s.do("POST", "/providers/github/initAuth", m{"state": body["state"], "redirectUrl": audience}); got.Status != 204 {
			t.Errorf("the state is not spent: got %d %s", got.Status, got.Code)
		}
	})
	t.Run("a second code for a state", func(t *testing.T) {
		body := s.come()
		again := "/providers/github/redirect?code=thief&state=" + body["state"].(string)
		refuse(t, s.do("GET", again, nil), 422, "invalid_verification")
		refuse(t, s.do("POST", "/providers/gitlab/signIn", body), 404, "not_found")
		refuse(t, s.do("POST", "/providers/other/signIn", body), 422, "invalid_verification")
		if got := s.do("POST", "/providers/github/signIn", body); got.Status != 200 {
			t.Errorf("the first one: got %d %s", got.Status, got.Code)
		}
	})
	t.Run("too late at the provider", func(t *testing.T) {
		state := strings.Repeat("l", 32)
		s.do("POST", "/providers/github/initAuth", m{"state": state, "redirectUrl": audience})
		s.pass(11 * time.Minute)
		refuse(t, s.do("GET", "/providers/github/redirect?code=c&state="+state, nil), 422, "invalid_verification")
	})
	state := strings.Repeat("q", 32)
	begin := func(body m) answer { return s.do("POST", "/providers/github/initAuth", body) }
	for _, to := range []string{"https://evil.example/", "https://wallet.example@evil.example/", "javascript:alert(1)", "", "/home", "http://wallet.example/"} {
		refuse(t, begin(m{"state": state, "redirectUrl": to}), 422, "invalid_redirect_url")
	}
	refuse(t, begin(m{"state": "short", "redirectUrl": audience}), 422, "invalid_state")
	if got := begin(m{"state": state, "redirectUrl": audience}); got.Status != 204 {
		t.Fatalf("got %d %s", got.Status, got.Code)
	}
	refuse(t, begin(m{"state": state, "redirectUrl": audience + "/other"}), 422, "invalid_state")
	refuse(t, s.do("POST", "/providers/github/signIn", m{"state": state, "code": ""}), 422, "invalid_verification")
	refuse(t, s.do("GET", "/providers/github/redirect?code=c&state="+strings.Repeat("z", 32), nil), 422, "invalid_verification")
	refuse(t, s.do("POST", "/providers/google/initAuth", m{"state": state, "redirectUrl": audience}), 404, "not_found")
}
