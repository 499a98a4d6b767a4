package extauthz_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stepward/stepward/extauthz"
	"github.com/stepward/stepward/internal/door"
)

type httpDoor struct {
	*setup
	server *httptest.Server
}

func newHTTP(t testing.TB, peers ...string) *httpDoor {
	t.Helper()
	s := newSetup(t)
	var trusted door.Peers
	for _, p := range peers {
		trusted = append(trusted, netip.MustParsePrefix(p))
	}
	d, err := extauthz.NewHTTP(s.config, trusted)
	if err != nil {
		t.Fatal(err)
	}
	h := &httpDoor{s, httptest.NewServer(d)}
	t.Cleanup(h.server.Close)
	return h
}

type reply struct {
	status int
	header http.Header
	reason string
}

func (h *httpDoor) ask(method, target, body string, header map[string]string, more ...string) reply {
	h.t.Helper()
	r, err := http.NewRequest(method, h.server.URL, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	r.URL.Opaque = target
	r.Host = "wallet.example"
	for name, value := range header {
		r.Header.Set(name, value)
	}
	for i := 0; i < len(more); i += 2 {
		r.Header.Add(more[i], more[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	var p struct{ Code string }
	_ = json.Unmarshal(text, &p) // an allowed answer has no body
	return reply{res.StatusCode, res.Header, p.Code}
}

// described is how the proxies of a mode describe a request.
func described(mode, method, target string, more ...string) map[string]string {
	h := map[string]string{"Authorization": "Bearer session-1"}
	if mode == "nginx" {
		h["X-Original-Method"], h["X-Original-Uri"] = method, target
	} else {
		h["X-Forwarded-Method"], h["X-Forwarded-Uri"], h["X-Forwarded-Host"] = method, target, "wallet.example"
	}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

const loopback = "127.0.0.0/8"

func TestForwardAuthInEveryMode(t *testing.T) {
	for _, mode := range extauthz.Modes() {
		t.Run(mode, func(t *testing.T) {
			h := newHTTP(t, loopback)
			at := extauthz.ForwardAuthPath + "?mode=" + mode
			a := h.ask("GET", at, "", described(mode, "POST", "/spend?x=1", "X-Elevated", "elevated-1", "Stepward-Subject", "mallory"))
			if a.status != 200 || a.header.Get("Stepward-Subject") != "alice" || a.header.Get("Stepward-Scopes") != "wallet:export" {
				t.Fatalf("allowed: %+v", a)
			}
			a = h.ask("GET", at, "", described(mode, "POST", "/spend", "X-Elevated", "elevated-1"))
			if a.status != 403 || a.reason != "elevated_access_token_consumed" || !strings.Contains(a.header.Get("Step-Up-Challenge"), "code=elevated_access_token_consumed") {
				t.Errorf("a second use: %+v", a)
			}
			a = h.ask("GET", at, "", map[string]string{"X-Original-Method": "GET", "X-Original-Uri": "/read", "X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/read"})
			if a.status != 401 || a.reason != "session_required" || a.header.Get("Www-Authenticate") == "" {
				t.Errorf("no session: %+v", a)
			}
			a = h.ask("GET", at, "", described(mode, "GET", "/read"))
			if values, told := a.header["Stepward-Scopes"]; a.status != 200 || told {
				t.Errorf("scopes of a request that needs none: %v, %+v", values, a)
			}
			for name, header := range map[string]map[string]string{
				"dots":              described(mode, "GET", "/files/../read"),
				"no target":         described(mode, "GET", ""),
				"no method":         described(mode, "", "/read"),
				"an unknown method": described(mode, "get", "/read"),
				"a body to judge":   described(mode, "POST", "/judged"),
				"a fact's twin":     described(mode, "GET", "/read", "Stepward_Subject", "mallory"),
			} {
				if a := h.ask("GET", at, "", header); a.status != 403 && a.status != 400 {
					t.Errorf("%s: %+v", name, a)
				}
			}
			target := "X-Forwarded-Uri"
			if mode == "nginx" {
				target = "X-Original-Uri"
			}
			if a := h.ask("GET", at, "", described(mode, "GET", "/read"), target, "/spend"); a.status < 400 {
				t.Errorf("two targets: %+v", a)
			}
		})
	}
}

// nginx makes a 500 of everything but 401 and 403.
func TestNginxGetsNothingElse(t *testing.T) {
	h := newHTTP(t, loopback)
	h.book.broken = true
	for _, header := range []map[string]string{
		described("nginx", "POST", "/spend", "X-Elevated", "elevated-1"), // 503
		described("nginx", "GET", "/a//b"),                               // 400
		described("nginx", "POST", "/read"),                              // 405
		{},                                                               // nothing
	} {
		a := h.ask("GET", extauthz.ForwardAuthPath+"?mode=nginx", "", header)
		if a.status != 401 && a.status != 403 || a.header.Get("Step-Up-Challenge") == "" {
			t.Errorf("%v: %+v", header, a)
		}
	}
	if a := h.ask("GET", extauthz.ForwardAuthPath+"?mode=caddy", "", described("caddy", "POST", "/spend", "X-Elevated", "elevated-1")); a.status != 503 {
		t.Errorf("caddy: %+v", a)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	h := newHTTP(t, "10.0.0.0/8")
	for range 3 {
		a := h.ask("GET", extauthz.ForwardAuthPath+"?mode=caddy", "", described("caddy", "GET", "/read"))
		if a.status != 400 {
			t.Errorf("%+v", a)
		}
	}
	if a := h.ask("GET", "/envoy/read", "", map[string]string{"Authorization": "Bearer session-1"}); a.status != 400 {
		t.Errorf("over /envoy: %+v", a)
	}
	if n := strings.Count(h.log.String(), "no trusted proxy"); n != 1 {
		t.Errorf("said %d times: %s", n, h.log)
	}
}

func TestASocketSaysWhoMayAsk(t *testing.T) {
	s := newSetup(t)
	d, err := extauthz.NewHTTP(s.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d}
	go server.Serve(l)
	t.Cleanup(func() { _ = server.Close() })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	r, _ := http.NewRequest(http.MethodGet, "http://x/envoy/read", nil)
	r.Header.Set("Authorization", "Bearer session-1")
	res, err := client.Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	_ = res.Body.Close()
}

func TestQuestionsThatNoProxyAsks(t *testing.T) {
	h := newHTTP(t, loopback)
	for _, target := range []string{"/", "/forward-auth", "/forward-auth?mode=apache", "/forward-auth/x?mode=nginx", "/envoy", "/envoyread", "/other?mode=nginx"} {
		header := described("nginx", "GET", "/read")
		if a := h.ask("GET", target, "", header); a.status < 400 {
			t.Errorf("%s: %+v", target, a)
		}
	}
}

func TestEnvoyOverHTTP(t *testing.T) {
	h := newHTTP(t, loopback)
	session := map[string]string{"Authorization": "Bearer session-1"}
	a := h.ask("POST", "/envoy/spend?x=1", "", session, "X-Elevated", "elevated-1", "Stepward-Subject", "mallory")
	removed := strings.Split(a.header.Get("X-Envoy-Auth-Headers-To-Remove"), ",")
	if a.status != 200 || a.header.Get("Stepward-Subject") != "alice" || !strings.Contains(strings.Join(removed, " "), "x-elevated") {
		t.Errorf("allowed: %+v", a)
	}
	h.book.broken = true
	a = h.ask("POST", "/envoy/spend", "", session, "X-Elevated", "elevated-2")
	if a.status != 403 || a.reason != "consumption_store_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("a 5xx obeys failure_mode_allow: %+v", a)
	}
	for name, row := range map[string]struct {
		body   string
		more   []string
		passes bool
	}{
		"whole":                                {`{"a":1}`, []string{"X-Envoy-Auth-Partial-Body", "false"}, true},
		"a beginning":                          {`{"a":1}`, []string{"X-Envoy-Auth-Partial-Body", "true"}, false},
		"not sent":                             {"", nil, false},
		"not sent, though a client says it is": {"", []string{"X-Envoy-Auth-Partial-Body", "false"}, false},
		"no word on it":                        {`{"a":1}`, nil, false},
	} {
		a := h.ask("POST", "/envoy/judged", row.body, session, append(row.more, "Content-Type", "application/json")...)
		if (a.status == 200) != row.passes {
			t.Errorf("body %s: %+v", name, a)
		}
	}
}
