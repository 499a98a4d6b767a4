package extauthz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/stepward/stepward/extauthz"
)

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// question is what Envoy says of one request.
type question struct {
	method, path string
	header       map[string]string // merged, as Envoy sends it by default
	raw          []string          // in place of header: name, value, name, value, as with encode_raw_headers
	body         string
	protocol     string
	extensions   map[string]string
}

func (q question) message() *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{
		Method: q.method, Path: q.path, Host: "wallet.example", Scheme: "https", Protocol: "HTTP/1.1", Size: -1, Body: q.body,
	}
	if q.protocol != "" {
		h.Protocol = q.protocol
	}
	if q.raw == nil {
		h.Headers = map[string]string{":method": q.method, ":path": q.path, ":authority": "wallet.example"}
		maps.Copy(h.Headers, q.header)
	} else {
		h.HeaderMap = new(corev3.HeaderMap)
		for i := 0; i < len(q.raw); i += 2 {
			h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: q.raw[i], RawValue: []byte(q.raw[i+1])})
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: h}, ContextExtensions: q.extensions,
	}}
}

// verdict is Envoy's reading of the answer.
type verdict struct {
	code          codes.Code
	status        int
	reason, state string
	set           map[string]string
	added         map[string]string // to the backend's answer
	removed       []string
	header        map[string]string // of a refusal
	body          string
	metadata      map[string]any
}

func read(t testing.TB, out *authv3.CheckResponse) verdict {
	t.Helper()
	v := verdict{code: codes.Code(out.GetStatus().GetCode()), metadata: out.GetDynamicMetadata().AsMap(), set: map[string]string{}, header: map[string]string{}}
	options := func(list []*corev3.HeaderValueOption, into map[string]string) {
		for _, o := range list {
			name := o.GetHeader().GetKey()
			if _, twice := into[name]; twice || o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || name != strings.ToLower(name) {
				t.Errorf("header %q: twice %v, action %v", name, twice, o.GetAppendAction())
			}
			into[name] = o.GetHeader().GetValue()
		}
	}
	if ok := out.GetOkResponse(); ok != nil {
		v.status = 200
		options(ok.GetHeaders(), v.set)
		v.removed, v.added = ok.GetHeadersToRemove(), map[string]string{}
		for _, o := range ok.GetResponseHeadersToAdd() {
			v.added[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
		}
		if v.code != codes.OK {
			t.Errorf("ok_response with status %v", v.code)
		}
		for _, name := range v.removed {
			if _, both := v.set[name]; both {
				t.Errorf("%s is set and removed", name)
			}
		}
		return v
	}
	denied := out.GetDeniedResponse()
	if denied == nil || v.code == codes.OK {
		t.Fatalf("neither ok_response nor denied_response with a status: %v", out)
	}
	v.status, v.body = int(denied.GetStatus().GetCode()), denied.GetBody()
	options(denied.GetHeaders(), v.header)
	var p struct {
		Code  string
		State string `json:"token_state"`
	}
	if err := json.Unmarshal([]byte(v.body), &p); err == nil {
		v.reason, v.state = p.Code, p.State
	}
	return v
}

type grpcDoor struct {
	*setup
	door *extauthz.GRPC
}

func newGRPC(t testing.TB, dedup time.Duration, edits ...func(*extauthz.Config)) *grpcDoor {
	t.Helper()
	s := newSetup(t)
	for _, edit := range edits {
		edit(&s.config)
	}
	d, err := extauthz.NewGRPC(s.config, extauthz.DedupConfig{For: dedup})
	if err != nil {
		t.Fatal(err)
	}
	return &grpcDoor{s, d}
}

func (g *grpcDoor) ask(ctx context.Context, q question) verdict {
	g.t.Helper()
	out, err := g.door.Check(ctx, q.message())
	if err != nil {
		g.t.Fatalf("a gRPC error obeys failure_mode_allow: %v", err)
	}
	return read(g.t, out)
}

func with(pairs ...string) map[string]string {
	h := map[string]string{"authorization": "Bearer session-1"}
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = pairs[i+1]
	}
	return h
}

func TestGRPCLetsPassAndTellsTheBackend(t *testing.T) {
	g := newGRPC(t, 0)
	v := g.ask(t.Context(), question{method: "POST", path: "/spend?x=1", header: with("x-elevated", "elevated-1", "stepward-subject", "mallory",
		"stepward_subject", "mallory", "x-forwarded-method", "DELETE", "x-request-id", "0123456789", "cookie", "a=1; SESSION=session-1; b=2")})
	if v.status != 200 {
		t.Fatalf("refused: %+v", v)
	}
	if v.set["stepward-subject"] != "alice" || v.set["stepward-scopes"] != "wallet:export" || len(v.set["stepward-decision-id"]) != 32 ||
		v.set["x-request-id"] != "0123456789" {
		t.Errorf("set %v", v.set)
	}
	for _, name := range []string{"x-elevated", "x_elevated", "x-mfa", "x_mfa", "stepward_subject", "x-forwarded-method"} {
		if !slices.Contains(v.removed, name) {
			t.Errorf("%s is not removed: %v", name, v.removed)
		}
	}
	if slices.Contains(v.removed, "authorization") || slices.Contains(v.removed, "cookie") {
		t.Errorf("the session, which is forwarded, is removed: %v", v.removed)
	}
	if v.metadata["operation"] != "spend" || v.metadata["subject"] != "alice" || v.metadata["outcome"] != "allow" {
		t.Errorf("metadata %v", v.metadata)
	}
	again := g.ask(t.Context(), question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")})
	if again.status != 403 || again.reason != "elevated_access_token_consumed" || again.state != "consumed" || again.code != codes.PermissionDenied {
		t.Errorf("a second use: %+v", again)
	}
}

func TestGRPCTellsClients(t *testing.T) {
	v := newGRPC(t, 0).ask(t.Context(), question{method: "GET", path: "/read", header: with("x-sdk-version", "WalletKit/4.75.0")})
	if want := `sdk_version_too_old;sdk="WalletKit";minimum="4.76.0"`; v.added["stepward-advice"] != want || v.status != 200 {
		t.Errorf("got %d %v, want %s", v.status, v.added, want)
	}
}

func TestGRPCRefusals(t *testing.T) {
	rows := []struct {
		name   string
		q      question
		status int
		code   codes.Code
		reason string
	}{
		{"no session", question{method: "GET", path: "/read"}, 401, codes.Unauthenticated, "session_required"},
		{"no token", question{method: "POST", path: "/spend", header: with()}, 403, codes.PermissionDenied, "elevated_access_token_required"},
		{"no token, by the other profile", question{method: "POST", path: "/spend", header: with(), extensions: map[string]string{"profile": "rfc9470"}},
			401, codes.Unauthenticated, "elevated_access_token_required"},
		{"merged tokens", question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1,elevated-2")}, 400, codes.InvalidArgument, "invalid_request"},
		{"two tokens", question{method: "POST", path: "/spend", raw: []string{"authorization", "Bearer session-1", "x-elevated", "elevated-1", "x-elevated", "elevated-2"}},
			400, codes.InvalidArgument, "invalid_request"},
		{"two sessions, merged", question{method: "GET", path: "/read", header: map[string]string{"authorization": "Bearer session-1,Bearer session-1"}},
			401, codes.Unauthenticated, "session_invalid"},
		{"a path with dots", question{method: "GET", path: "/files/../read", header: with()}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"an encoded slash", question{method: "GET", path: "/files/..%2fread", header: with()}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"a whole URL", question{method: "GET", path: "http://x/read", header: with()}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"a path that its pseudo-header contradicts", question{method: "GET", path: "/read", header: with(":path", "/spend")}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"a token in the query", question{method: "GET", path: "/read?x-elevated=1", header: with()}, 400, codes.InvalidArgument, "invalid_request"},
		{"a tunnel", question{method: "GET", path: "/read", header: with("upgrade", "h2c")}, 403, codes.PermissionDenied, "upgrade_not_allowed"},
		{"a WebSocket where none is", question{method: "GET", path: "/read", header: with("upgrade", "websocket")}, 403, codes.PermissionDenied, "upgrade_not_allowed"},
		{"a GET with a body", question{method: "GET", path: "/read", header: with("content-length", "3")}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"another environment by the route", question{method: "GET", path: "/read", header: with(), extensions: map[string]string{"environment": "other"}},
			403, codes.PermissionDenied, "environment_mismatch"},
		{"no route", question{method: "GET", path: "/nowhere", header: with()}, 403, codes.PermissionDenied, "route_unmatched"},
		{"a method that is none", question{method: "get", path: "/read", header: with()}, 400, codes.InvalidArgument, "ambiguous_request"},
		{"nothing at all", question{}, 400, codes.InvalidArgument, "ambiguous_request"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			g := newGRPC(t, 0)
			v := g.ask(t.Context(), row.q)
			if v.status != row.status || v.code != row.code || v.reason != row.reason {
				t.Errorf("got %d %v %q, want %d %v %q", v.status, v.code, v.reason, row.status, row.code, row.reason)
			}
			if g.book.tried() > 0 {
				t.Error("a token was spent")
			}
			if v.header["step-up-challenge"] == "" || v.header["content-length"] != "" {
				t.Errorf("header %v", v.header)
			}
		})
	}
	out, err := newGRPC(t, 0).door.Check(t.Context(), nil)
	if err != nil || read(t, out).status != 400 {
		t.Errorf("no question: %v %v", out, err)
	}
}

// Envoy sends a body only where it is told to, and may send its beginning.
func TestGRPCBodies(t *testing.T) {
	jsonType := []string{"content-type", "application/json"}
	rows := []struct {
		name, body, protocol string
		header               []string
		reason               string // "" passes
	}{
		{"whole", `{"a":1}`, "", []string{"content-length", "7", "x-envoy-auth-partial-body", "false"}, ""},
		{"whole, without a length", `{"a":1}`, "HTTP/2", []string{"x-envoy-auth-partial-body", "false"}, ""},
		{"none, and a length that says so", "", "HTTP/2", []string{"content-length", "0"}, ""},
		{"none that is announced", "", "HTTP/1.1", nil, "body_unreadable"},
		{"not sent", "", "", []string{"content-length", "7"}, "body_unreadable"},
		{"not sent, chunked", "", "", []string{"transfer-encoding", "chunked"}, "body_unreadable"},
		{"not sent, though a client says it is", "", "HTTP/2", []string{"x-envoy-auth-partial-body", "false"}, "body_unreadable"},
		{"a beginning", `{"a":`, "", []string{"content-length", "7", "x-envoy-auth-partial-body", "true"}, "body_too_large"},
		{"a beginning that a client calls whole", `{"a":1}`, "", []string{"content-length", "9", "x-envoy-auth-partial-body", "false"}, "body_unreadable"},
		{"two words on it", `{"a":1}`, "", []string{"x-envoy-auth-partial-body", "false,true"}, "body_unreadable"},
		{"no word on it", `{"a":1}`, "", []string{"content-length", "7"}, "body_unreadable"},
		{"longer than the policy reads", `{"a":"` + strings.Repeat("x", 64) + `"}`, "HTTP/2", []string{"x-envoy-auth-partial-body", "false"}, "body_too_large"},
		{"no JSON", `a=1`, "HTTP/2", []string{"x-envoy-auth-partial-body", "false"}, "body_unreadable"},
		{"two lengths", `{"a":1}`, "", []string{"content-length", "7,7", "x-envoy-auth-partial-body", "false"}, "body_unreadable"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			v := newGRPC(t, 0).ask(t.Context(), question{
				method: "POST", path: "/judged", header: with(append(jsonType, row.header...)...), body: row.body, protocol: row.protocol,
			})
			if v.reason != row.reason || (row.reason == "") != (v.status == 200) {
				t.Errorf("got %d %q, want %q", v.status, v.reason, row.reason)
			}
		})
	}
}

// Cookies that are written anew go to Envoy as text, and Envoy takes UTF-8 only: the rest would be a gRPC error.
func TestGRPCCookies(t *testing.T) {
	g := newGRPC(t, 0, func(c *extauthz.Config) { c.Credentials.ForwardSession = false })
	for cookie, want := range map[string]string{"SESSION=session-1; a=b": "a=b", "SESSION=session-1; a=\u00e4": "a=\u00e4", "SESSION=session-1; a=\xe4": ""} {
		v := g.ask(t.Context(), question{method: "GET", path: "/read", raw: []string{"cookie", cookie}})
		if want == "" && (v.status != 400 || v.reason != "ambiguous_request") || want != "" && (v.status != 200 || v.set["cookie"] != want) {
			t.Errorf("%q: got %+v", cookie, v)
		}
	}
}

// Trouble of ours is a refusal with a body, never a gRPC error.
func TestGRPCFailsClosed(t *testing.T) {
	g := newGRPC(t, 0)
	g.book.broken = true
	v := g.ask(t.Context(), question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")})
	if v.status != 503 || v.code != codes.Unavailable || v.reason != "consumption_store_unavailable" || v.header["retry-after"] == "" {
		t.Errorf("a ledger that is out of reach: %+v", v)
	}
	v = g.ask(t.Context(), question{method: "GET", path: "/read", header: map[string]string{"authorization": "Bearer panic"}})
	if v.status != 503 || v.reason != "policy_error" || !strings.Contains(g.log.String(), "panic") {
		t.Errorf("a panic: %+v, log %s", v, g.log)
	}
}

func TestGRPCDoesNotSpendTooLate(t *testing.T) {
	g := newGRPC(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	v := g.ask(ctx, question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")})
	if v.status != 503 || v.reason != "consumption_store_unavailable" || v.state != "unused" || g.book.tried() != 0 {
		t.Errorf("with 30 ms left: %+v, %d reservations", v, g.book.tried())
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if v := g.ask(ctx, question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")}); v.status != 200 {
		t.Errorf("with a minute left: %+v", v)
	}
}

func TestGRPCShadowNeverSpends(t *testing.T) {
	g := newGRPC(t, 0)
	shadow := map[string]string{"shadow": "true"}
	v := g.ask(t.Context(), question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1"), extensions: shadow})
	if v.status != 200 || g.book.tried() != 0 {
		t.Errorf("a good token: %+v, %d reservations", v, g.book.tried())
	}
	v = g.ask(t.Context(), question{method: "POST", path: "/spend", header: with(), extensions: shadow})
	if v.status != 200 || v.metadata["outcome"] != "would_refuse" || v.metadata["reason"] != "elevated_access_token_required" {
		t.Errorf("no token: %+v", v)
	}
	v = g.ask(t.Context(), question{method: "POST", path: "/spend", header: with(), extensions: map[string]string{"shadow": "ture"}})
	if v.status != 403 {
		t.Errorf("a misspelt word: %+v", v)
	}
}

// A gRPC caller reads its status from header fields, and Envoy makes the HTTP status 200 by itself.
func TestGRPCCallersGetAStatus(t *testing.T) {
	v := newGRPC(t, 0).ask(t.Context(), question{method: "POST", path: "/spend", header: with("content-type", "application/grpc")})
	if v.status != 403 || v.header["grpc-status"] != "7" || v.header["content-type"] != "application/grpc" || v.body != "" {
		t.Errorf("%+v", v)
	}
}

func TestGRPCRepeatsAnswersOnlyForEnvoyItself(t *testing.T) {
	spend := question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1", "x-request-id", "0123456789")}
	socket := &peer.Peer{Addr: &net.UnixAddr{Name: "/run/x", Net: "unix"}}
	anybody := &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
	other := func(pairs ...string) question {
		q := spend
		q.header = maps.Clone(spend.header)
		for i := 0; i < len(pairs); i += 2 {
			q.header[pairs[i]] = pairs[i+1]
		}
		return q
	}
	rows := []struct {
		name   string
		from   *peer.Peer
		dedup  time.Duration
		second question
		status int
	}{
		{"the same over a socket", socket, time.Minute, spend, 200},
		{"switched off", socket, 0, spend, 403},
		{"from anybody", anybody, time.Minute, spend, 403},
		{"another request id", socket, time.Minute, other("x-request-id", "9876543210"), 403},
		{"no request id", socket, time.Minute, question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")}, 403},
		{"another target", socket, time.Minute, question{method: "POST", path: "/spend?a=1", header: spend.header}, 403},
		{"another body", socket, time.Minute, question{method: "POST", path: "/spend", header: spend.header, body: "x"}, 403},
		{"another header that is stripped", socket, time.Minute, other("x-http-method-override", "DELETE"), 403},
		{"another header", socket, time.Minute, other("x-amount", "1000"), 403},
		{"too late", socket, time.Nanosecond, spend, 403},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			g := newGRPC(t, row.dedup)
			ctx := peer.NewContext(t.Context(), row.from)
			if v := g.ask(ctx, spend); v.status != 200 {
				t.Fatalf("the first: %+v", v)
			}
			if v := g.ask(ctx, row.second); v.status != row.status {
				t.Errorf("the second: %+v, want %d", v, row.status)
			}
		})
	}
}

// Two headers that are the same words in the same order are not the same header.
func TestGRPCRepeatsKeepNamesAndValuesApart(t *testing.T) {
	g := newGRPC(t, time.Minute)
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.UnixAddr{Name: "/run/x", Net: "unix"}})
	spend := func(fields ...string) verdict {
		return g.ask(ctx, question{method: "POST", path: "/spend", raw: append([]string{
			"authorization", "Bearer session-1", "x-elevated", "elevated-1", "x-request-id", "0123456789",
		}, fields...)})
	}
	if v := spend("x-a", "1", "x-b", "z"); v.status != 200 {
		t.Fatalf("the first: %+v", v)
	}
	if v := spend("x-a", "1", "x-a", "X-B", "x-a", "z"); v.status != 403 {
		t.Errorf("another header: %+v", v)
	}
}

// A proxy whose list of allowed headers lacks the elevated token's refuses every step-up for ever.
func TestAProxyThatDropsTheHeaderIsNamed(t *testing.T) {
	const says = "never passed on the header"
	g := newGRPC(t, 0)
	ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 1}})
	for range 50 {
		g.ask(ctx, question{method: "POST", path: "/spend", header: with()})
	}
	if n := strings.Count(g.log.String(), says); n != 1 || !strings.Contains(g.log.String(), "10.1.2.3") {
		t.Errorf("said %d times: %s", n, g.log)
	}
	g = newGRPC(t, 0)
	g.ask(ctx, question{method: "POST", path: "/spend", header: with("x-elevated", "elevated-1")})
	for range 50 {
		g.ask(ctx, question{method: "POST", path: "/spend", header: with()})
	}
	if strings.Contains(g.log.String(), says) {
		t.Errorf("a proxy that does pass it on is named: %s", g.log)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("POST", "/spend?x=1", "x-elevated", "elevated-1", `{"a":1}`, "HTTP/2")
	f.Add("GET", "/files/a", ":path", "/spend", "", "HTTP/1.1")
	f.Add("GET", "/read", "cookie", "SESSION=session-1; b=\xff", "", "HTTP/1.1")
	g := newGRPC(f, 0, func(c *extauthz.Config) { c.Credentials.ForwardSession = false })
	f.Fuzz(func(t *testing.T, method, path, name, value, body, protocol string) {
		for _, part := range []string{method, path, name, body, protocol} {
			if !utf8.ValidString(part) {
				t.Skip("no message can have it")
			}
		}
		q := question{method: method, path: path, raw: []string{name, value}, body: body, protocol: protocol}
		check := func() {
			out, err := g.door.Check(t.Context(), q.message())
			if err != nil {
				t.Fatal(err)
			}
			if v := read(t, out); v.status == 200 && !strings.HasPrefix(value, "Bearer session-") && !strings.Contains(value, "SESSION=session-") {
				t.Errorf("passed without a session: %+v", v)
			}
		}
		check()
		if q.header, q.raw = map[string]string{name: value}, nil; utf8.ValidString(value) {
			check()
		}
	})
}
