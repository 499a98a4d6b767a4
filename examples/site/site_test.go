package site_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/examples/site"
)

// The page itself is tested in a browser, where the demo is: in cmd/stepward.

const (
	environment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"
	door        = "http://127.0.0.1:8080"
)

// newSite serves a site and returns its origin.
func newSite(t *testing.T) (*site.Site, string) {
	t.Helper()
	var h http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	s, err := site.New(site.Config{Origin: server.URL, Environments: []site.Environment{{ID: environment, Title: "new"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Open(door)
	h = s.Handler()
	return s, server.URL
}

// send sends a request and reads the answer's body into a value, or into a text.
func send(t *testing.T, method, url, body string, into any, edits ...func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(r)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("%s %s: %v in %q", method, url, err, raw)
		}
	}
	return res
}

func TestThePageKnowsWhereTheDoorIs(t *testing.T) {
	_, origin := newSite(t)
	res := send(t, "GET", origin+"/", "", nil)
	if policy := res.Header.Get("Content-Security-Policy"); res.StatusCode != http.StatusOK || !strings.Contains(policy, "connect-src 'self' "+door+";") {
		t.Errorf("got %d, %q", res.StatusCode, policy)
	}
	var settings struct {
		Door         string
		Environments []site.Environment
	}
	send(t, "GET", origin+"/settings.json", "", &settings)
	if settings.Door != door || len(settings.Environments) != 1 || settings.Environments[0].ID != environment {
		t.Errorf("got %+v", settings)
	}
}

func TestTheMailboxShowsTheNewestFirst(t *testing.T) {
	s, origin := newSite(t)
	for range 200 {
		s.Deliver(issuer.Mail{To: "old@wallet.example", Code: "1"})
	}
	s.Deliver(issuer.Mail{To: "new@wallet.example", Link: origin + "/?deviceRegistrationToken=x"})
	var mail []struct{ To, Code, Link string }
	send(t, "GET", origin+"/mailbox", "", &mail)
	if len(mail) != 100 || mail[0].To != "new@wallet.example" || mail[0].Link == "" || mail[1].Code != "1" {
		t.Errorf("got %d, %+v", len(mail), mail[:2])
	}
}

func TestAnIssuerTakesWhatTheSiteSigns(t *testing.T) {
	_, origin := newSite(t)
	i, err := issuer.New(issuer.Config{
		Dir: t.TempDir(), Environment: environment, Audience: "https://wallet.example", Origins: []string{origin}, Algorithm: "ES256",
		External: &issuer.External{Issuer: origin, Audience: environment, JWKSURL: origin + site.KeysPath},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	api := httptest.NewServer(i.Handler())
	defer api.Close()
	at := api.URL + i.Prefix()

	var token struct{ JWT string }
	send(t, "POST", origin+"/token", `{"environment":"`+environment+`","user":"grace"}`, &token)
	var session struct{ JWT string }
	if res := send(t, "POST", at+"/externalAuth/signin", `{"jwt":"`+token.JWT+`"}`, &session); res.StatusCode != http.StatusOK || session.JWT == "" {
		t.Fatalf("sign-in: got %d", res.StatusCode)
	}
	send(t, "POST", origin+"/token", `{"environment":"`+environment+`","user":"grace","scope":"wallet:export"}`, &token)
	var elevated struct{ ElevatedAccessToken string }
	send(t, "POST", at+"/externalAuth/verify", `{"jwt":"`+token.JWT+`"}`, &elevated, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+session.JWT)
	})
	if elevated.ElevatedAccessToken == "" {
		t.Error("the assertion brought no token")
	}

	var nonce struct{ Nonce string }
	send(t, "GET", at+"/nonce", "", &nonce)
	var proof json.RawMessage
	send(t, "POST", origin+"/wallet", `{"environment":"`+environment+`","nonce":"`+nonce.Nonce+`"}`, &proof)
	if res := send(t, "POST", at+"/verify", string(proof), &session); res.StatusCode != http.StatusOK {
		t.Errorf("wallet: got %d", res.StatusCode)
	}
}

func TestStrangersReadAndSignNothing(t *testing.T) {
	_, origin := newSite(t)
	rebound := func(r *http.Request) { r.Host = "evil.example" }
	foreign := func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }
	if res := send(t, "GET", origin+"/mailbox", "", nil, rebound); res.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by another name: got %d", res.StatusCode)
	}
	for _, path := range []string{"/token", "/wallet"} {
		if res := send(t, "POST", origin+path, `{"user":"ann"}`, nil, foreign); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s from another site: got %d", path, res.StatusCode)
		}
		if res := send(t, "POST", origin+path, `{`, nil); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s without JSON: got %d", path, res.StatusCode)
		}
	}
	if res := send(t, "POST", origin+"/token", `{"user":"grace"}`, nil); res.StatusCode != http.StatusBadRequest {
		t.Errorf("nobody: got %d", res.StatusCode)
	}
}

func TestConfigurations(t *testing.T) {
	for name, cfg := range map[string]site.Config{
		"no origin":       {Environments: []site.Environment{{ID: environment}}},
		"no environments": {Origin: "http://localhost:1"},
	} {
		if _, err := site.New(cfg); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}
