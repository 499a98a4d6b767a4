package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/policy"
)

// told is a policy that advises everybody and announces a floor on every route.
func told(t *testing.T, mode string) option {
	t.Helper()
	data := strings.Replace(string(files["data.yaml"].Data), "default: {", "default: {mode: "+mode+", ", 1)
	engine, err := policy.New(context.Background(), policy.Config{EvalTimeout: time.Minute, FS: fstest.MapFS{
		"data.yaml": {Data: []byte(data)},
		"requirement.rego": {Data: []byte(`package stepward

requirement := object.union({
	"operation": "read", "session": true, "device": "any", "advise_sdk": {"WalletKit": "4.76.0"},
	"announced": {"minimum_api_version": "2026_04_01", "deprecation": "2026-12-01", "sunset": "2027-02-01T09:00:00Z", "link": "https://docs.example/a?b=c"},
}, object.get(data.stepward.needs, input.route, {}))
`)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return option{gate: func(c *gate.Config) { c.Policy, c.Environment.Fixed = engine.Snapshot, environment }}
}

var toldHeader = http.Header{
	"Stepward-Advice": {`sdk_version_too_old;sdk="WalletKit";minimum="4.76.0"`},
	"Deprecation":     {"@1796083200"},
	"Sunset":          {"Mon, 01 Feb 2027 09:00:00 GMT"},
	"Link":            {`<https://docs.example/a?b=c>; rel="deprecation"`, `<https://docs.example/a?b=c>; rel="sunset"`},
}

func checkTold(t *testing.T, got, want http.Header) {
	t.Helper()
	for name := range toldHeader {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
}

func without(h http.Header, names ...string) http.Header {
	h = h.Clone()
	for _, name := range names {
		h.Del(name)
	}
	return h
}

func TestClientsAreTold(t *testing.T) {
	backend := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("fails") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "ok")
	})
	const old = "4.75.0"
	s := newSetup(t, backend, told(t, "enforce"))
	shadow := newSetup(t, backend, told(t, "shadow"))
	down := told(t, "enforce")
	down.upstream = "http://127.0.0.1:1"
	for _, c := range []struct {
		name, method, path, sdk string
		s                       *setup
		status                  int
		want                    http.Header
	}{
		{"an older SDK, allowed", "GET", "/read", old, s, 200, toldHeader},
		{"a new one, allowed", "GET", "/read", "4.76.0", s, 200, without(toldHeader, "Stepward-Advice")},
		{"refused", "POST", "/spend", old, s, 403, toldHeader},
		{"would be refused", "POST", "/spend", old, shadow, 200, toldHeader},
		{"an error of the backend's", "GET", "/read?fails", old, s, 500, toldHeader},
		{"no backend", "GET", "/read", old, newSetup(t, nil, down), 502, toldHeader},
		{"a route that is none", "GET", "/nothing", old, s, 403, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := c.s.do(c.method, c.path, nil, "X-Sdk-Version", c.sdk)
			if res.StatusCode != c.status {
				t.Errorf("answered %d, want %d", res.StatusCode, c.status)
			}
			checkTold(t, res.Header, c.want)
		})
	}
}

// What the backend announces itself stays as it is, and stays alone.
func TestABackendHasTheWordOnItsOwnDeprecation(t *testing.T) {
	for _, c := range []struct {
		name      string
		own, want http.Header
	}{
		{"a deprecation", http.Header{"Deprecation": {"@1"}}, http.Header{"Deprecation": {"@1"}, "Stepward-Advice": toldHeader["Stepward-Advice"]}},
		{"a sunset", http.Header{"Sunset": {"Sat, 01 Jan 2028 00:00:00 GMT"}}, http.Header{"Sunset": {"Sat, 01 Jan 2028 00:00:00 GMT"}, "Stepward-Advice": toldHeader["Stepward-Advice"]}},
		{"links of another kind", http.Header{"Link": {`</next>; rel="next"`}}, http.Header{
			"Link": append([]string{`</next>; rel="next"`}, toldHeader["Link"]...), "Deprecation": toldHeader["Deprecation"],
			"Sunset": toldHeader["Sunset"], "Stepward-Advice": toldHeader["Stepward-Advice"],
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for name, values := range c.own {
					w.Header()[name] = values
				}
			}), told(t, "enforce"))
			checkTold(t, s.do("GET", "/read", nil, "X-Sdk-Version", "4.75.0").Header, c.want)
		})
	}
}

func TestAStreamIsToldAtItsHead(t *testing.T) {
	next := make(chan struct{})
	s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 0\n\n")
		w.(http.Flusher).Flush()
		<-next
	}), told(t, "enforce"))
	defer close(next)
	res := s.do("GET", "/read", nil, "X-Sdk-Version", "4.75.0")
	checkTold(t, res.Header, toldHeader)
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "data: 0\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// Neither an informational answer nor a switch of protocols is an answer to tell anything in.
func TestInterimAnswersAreNotTold(t *testing.T) {
	s := newSetup(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
	}), told(t, "enforce"))
	var hints http.Header
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints {
			hints = http.Header(h).Clone()
		}
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.front.URL+"/read", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer session-1")
	r.Header.Set("X-Sdk-Version", "4.75.0")
	res, err := s.front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	checkTold(t, hints, http.Header{"Link": {"</style.css>; rel=preload"}})
	checkTold(t, res.Header, toldHeader)

	socket := newSetup(t, socketServer(), told(t, "enforce"))
	c, res, err := socket.dialSocket("/socket", "X-Sdk-Version", "4.75.0")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.CloseNow()
	checkTold(t, res.Header, nil)
}
