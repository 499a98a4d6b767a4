package oidc_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/examples/oidc"
)

const (
	callback = "https://wallet.example/callback"
	verifier = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq"
)

type world struct {
	t   *testing.T
	url string
	now time.Time
}

func newWorld(t *testing.T, dir string) (*world, *oidc.Provider) {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)}
	p, err := oidc.New(oidc.Config{
		Dir: dir, URL: "https://social.example", ClientID: "wallet", ClientSecret: "s3cret", Redirects: []string{callback},
		Now: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p.Handler())
	t.Cleanup(func() { server.Close(); _ = p.Close() })
	w.url = server.URL
	return w, p
}

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func request(edits ...string) string {
	q := url.Values{"client_id": {"wallet"}, "redirect_uri": {callback}, "response_type": {"code"}, "state": {"s&1"},
		"code_challenge": {challenge()}, "code_challenge_method": {"S256"}}
	for n := 0; n+1 < len(edits); n += 2 {
		if q.Set(edits[n], edits[n+1]); edits[n+1] == "" {
			q.Del(edits[n])
		}
	}
	return oidc.PathAuthorize + "?" + q.Encode()
}

func (w *world) send(method, path string, form url.Values) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, string(raw)
}

// press presses the button, and returns what the browser takes to the client.
func (w *world) press(path string) url.Values {
	w.t.Helper()
	res, _ := w.send("POST", path, url.Values{"email": {"ann@social.example"}})
	to, err := res.Location()
	if err != nil || !strings.HasPrefix(to.String(), callback+"?") {
		w.t.Fatalf("got %d, %v", res.StatusCode, err)
	}
	return to.Query()
}

func (w *world) exchange(code string, edits ...string) (int, map[string]any) {
	w.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback},
		"client_id": {"wallet"}, "client_secret": {"s3cret"}, "code_verifier": {verifier}}
	for n := 0; n+1 < len(edits); n += 2 {
		if form.Set(edits[n], edits[n+1]); edits[n+1] == "" {
			form.Del(edits[n])
		}
	}
	res, body := w.send("POST", oidc.PathToken, form)
	var answer map[string]any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		w.t.Fatalf("%q: %v", body, err)
	}
	return res.StatusCode, answer
}

func TestOneButtonSignsIn(t *testing.T) {
	w, _ := newWorld(t, t.TempDir())
	res, page := w.send("GET", request(), nil)
	if res.StatusCode != http.StatusOK || !strings.Contains(page, "wallet asks who you are") || !strings.Contains(page, `action="/authorize?`) ||
		!strings.Contains(page, "state=s%261&amp;") && !strings.Contains(page, `state=s%261"`) {
		t.Errorf("got %d %s", res.StatusCode, page)
	}
	back := w.press(request())
	if back.Get("state") != "s&1" || back.Get("code") == "" {
		t.Fatalf("got %v", back)
	}
	status, answer := w.exchange(back.Get("code"))
	if id, ok := answer["id_token"].(string); status != 200 || !ok || strings.Count(id, ".") != 2 {
		t.Errorf("got %d %v", status, answer)
	}
	if status, answer = w.exchange(back.Get("code")); status != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("again: got %d %v", status, answer)
	}
	res, found := w.send("GET", "/.well-known/openid-configuration", nil)
	if res.StatusCode != http.StatusOK || !strings.Contains(found, `"issuer":"https://social.example"`) {
		t.Errorf("got %d %s", res.StatusCode, found)
	}
}

func TestCodesFitWhatTheyWereMadeFor(t *testing.T) {
	w, _ := newWorld(t, t.TempDir())
	tests := map[string]struct {
		edits  []string
		status int
		code   string
	}{
		"another verifier": {[]string{"code_verifier", strings.Repeat("b", 43)}, 400, "invalid_grant"},
		"no verifier":      {[]string{"code_verifier", ""}, 400, "invalid_grant"},
		"another address":  {[]string{"redirect_uri", "https://evil.example/"}, 400, "invalid_grant"},
		"another secret":   {[]string{"client_secret", "guess"}, 401, "invalid_client"},
		"another client":   {[]string{"client_id", "other"}, 401, "invalid_client"},
		"another grant":    {[]string{"grant_type", "password"}, 400, "unsupported_grant_type"},
		"a made-up code":   {[]string{"code", "AAAA"}, 400, "invalid_grant"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if status, answer := w.exchange(w.press(request()).Get("code"), test.edits...); status != test.status || answer["error"] != test.code {
				t.Errorf("got %d %v", status, answer)
			}
		})
	}
	t.Run("a verifier where there was no challenge", func(t *testing.T) {
		code := w.press(request("code_challenge", "", "code_challenge_method", "")).Get("code")
		if status, answer := w.exchange(code); status != 400 || answer["error"] != "invalid_grant" {
			t.Errorf("got %d %v", status, answer)
		}
	})
	t.Run("neither", func(t *testing.T) {
		code := w.press(request("code_challenge", "", "code_challenge_method", "")).Get("code")
		if status, answer := w.exchange(code, "code_verifier", ""); status != 200 {
			t.Errorf("got %d %v", status, answer)
		}
	})
	t.Run("too late", func(t *testing.T) {
		code := w.press(request()).Get("code")
		w.now = w.now.Add(2 * time.Minute)
		if status, answer := w.exchange(code); status != 400 || answer["error"] != "invalid_grant" {
			t.Errorf("got %d %v", status, answer)
		}
	})
}

func TestRequestsThatAreNotTheClients(t *testing.T) {
	w, _ := newWorld(t, t.TempDir())
	for _, edits := range [][]string{{"client_id", "other"}, {"redirect_uri", "https://evil.example/"}, {"redirect_uri", ""}} {
		for _, method := range []string{"GET", "POST"} {
			if res, _ := w.send(method, request(edits...), url.Values{"email": {"ann@social.example"}}); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
				t.Errorf("%s %v: got %d to %q", method, edits, res.StatusCode, res.Header.Get("Location"))
			}
		}
	}
	if res, _ := w.send("POST", request(), nil); res.StatusCode != http.StatusBadRequest {
		t.Errorf("nobody: got %d", res.StatusCode)
	}
	for want, edits := range map[string][]string{
		"unsupported_response_type": {"response_type", "token"}, "invalid_request": {"code_challenge_method", "plain"},
	} {
		if got := w.press(request(edits...)); got.Get("error") != want || got.Get("code") != "" {
			t.Errorf("%v: got %v", edits, got)
		}
	}
}

func TestTheKeyOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	w, p := newWorld(t, dir)
	_, before := w.send("GET", oidc.PathKeys, nil)
	if _, err := oidc.New(oidc.Config{}); err == nil {
		t.Error("New took an empty configuration")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := newWorld(t, dir)
	if _, after := again.send("GET", oidc.PathKeys, nil); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
}
