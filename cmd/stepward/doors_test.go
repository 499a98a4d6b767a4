package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/testkit"
	"github.com/stepward/stepward/rego"
)

// codeOf is the reason of a refusal: nginx drops bodies, and its configuration makes one of the structured header.
func codeOf(a answer) string {
	var body struct{ Code string }
	_ = json.Unmarshal([]byte(a.Body), &body) // a proxy's own refusals have other bodies
	return body.Code
}

func TestEveryDoorJudgesAlike(t *testing.T) {
	if testing.Short() {
		t.Skip("starts five proxies")
	}
	s := newStreet(t)
	prefix := s.issuer.Prefix()
	session := s.session("ann")
	expired := s.session("ann", func(c map[string]any) {
		c["exp"], c["iat"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(-2*time.Hour).Unix()
	})
	pending := s.session("ann", func(c map[string]any) { c["scope"] = "device:register" })
	halfway := s.session("ann", func(c map[string]any) { c["scope"] = "requiresAdditionalAuth" })
	exportID := `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`
	rows := []struct {
		name   string
		call   func(path string) callOf // path exports a wallet of this row's own
		status int
		code   string
	}{
		{"a read", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: session} }, 200, ""},
		{"public", func(string) callOf { return callOf{method: "GET", path: prefix + "/settings"} }, 200, ""},
		{"no session", func(string) callOf { return callOf{method: "GET", path: prefix + "/users"} }, 401, "session_required"},
		{"an expired session", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: expired} }, 401, "session_invalid"},
		{"no token", func(p string) callOf { return callOf{method: "POST", path: p, body: exportID, session: session} }, 403, "elevated_access_token_required"},
		{"another scope", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("ann", "credential:link")}
		}, 403, "elevated_access_token_insufficient_scope"},
		{"another user's token", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("bob", "wallet:export")}
		}, 403, "elevated_access_token_invalid"},
		{"a token that is none", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: "a.b.c"}
		}, 403, "elevated_access_token_invalid"},
		{"a good token", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("ann", "wallet:export")}
		}, 200, ""},
		{"an unregistered device", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: pending} }, 403, "device_verification_required"},
		{"below the floor", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Api-Version": "2026_01_01"}}
		}, 400, "api_version_below_floor"},
		{"no version", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Api-Version": "newest"}}
		}, 400, "api_version_invalid"},
		{"a second factor outstanding", func(string) callOf { return callOf{method: "GET", path: prefix + "/users", session: halfway} }, 403, "additional_auth_required"},
		{"an old SDK", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"X-Dyn-Version": "WalletKit/4.0.0"}}
		}, 400, "sdk_version_too_old"},
		{"no MFA token", func(path string) callOf {
			return callOf{method: "POST", path: strings.Replace(path, "privateKey/export", "keyShares/recover", 1), body: "{}", session: session}
		}, 403, "mfa_token_required"},
		{"no route", func(string) callOf { return callOf{method: "GET", path: "/elsewhere", session: session} }, 403, "route_unmatched"},
		{"another method", func(string) callOf { return callOf{method: "PATCH", path: prefix + "/users", session: session} }, 405, "method_not_allowed"},
		{"another method for an export", func(p string) callOf { return callOf{method: "GET", path: p, session: session} }, 405, "method_not_allowed"},
		{"an administration route", func(string) callOf {
			return callOf{method: "GET", path: "/api/v0/environments/x/users", session: session}
		}, 403, "forbidden"},
		{"a token in the query", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users?x-dyn-elevated-access-token=x", session: session}
		}, 400, "invalid_request"},
		{"early data", func(string) callOf {
			return callOf{method: "GET", path: prefix + "/users", session: session, header: map[string]string{"Early-Data": "1"}}
		}, 200, ""},
		{"early data and a good token", func(p string) callOf {
			return callOf{method: "POST", path: p, body: exportID, session: session, elevated: s.elevated("ann", "wallet:export"), header: map[string]string{"Early-Data": "1"}}
		}, 425, "too_early"},
		{"a preflight", func(p string) callOf {
			return callOf{method: "OPTIONS", path: p, session: session, elevated: s.elevated("ann", "wallet:export"),
				header: map[string]string{"Origin": testAudience, "Access-Control-Request-Method": "POST"}}
		}, 204, ""},
		{"a preflight for another method", func(p string) callOf {
			return callOf{method: "OPTIONS", path: p, header: map[string]string{"Origin": testAudience, "Access-Control-Request-Method": "PUT"}}
		}, 405, "method_not_allowed"},
	}
	told := map[string]http.Header{} // what the client of Stepward's own door, the first, is told of a refusal
	for _, f := range s.fronts {
		t.Run(f.name, func(t *testing.T) {
			for _, row := range rows {
				path := s.wallet("ann")
				before := s.origin.count()
				c := row.call(path)
				a := s.through(f, c)
				want := row.status
				if want >= 400 {
					want = f.status(want)
				}
				reached := s.origin.since(before)
				if a.Status != want || codeOf(a) != row.code || (len(reached) > 0) != (row.status < 400) {
					t.Errorf("%s: got %d %q, %d reached the backend; want %d %q: %.300s", row.name, a.Status, codeOf(a), len(reached), want, row.code, a.Body)
				}
				if row.status >= 400 {
					if told[row.name] == nil {
						told[row.name] = a.Header
					}
					for name := range told[row.name] {
						if n := len(a.Header[name]); n != 1 {
							t.Errorf("%s: %d fields %s", row.name, n, name)
						}
					}
					if !strings.Contains(a.Header.Get("Step-Up-Challenge"), "code="+row.code) || len(a.Header["Www-Authenticate"]) > 1 {
						t.Errorf("%s: the header is %v", row.name, a.Header)
					}
				}
				if row.name == "a preflight" && len(reached) == 1 && (reached[0].Header.Get("Authorization") == "") != f.whole {
					t.Errorf("%s: the backend was told %v", row.name, reached[0].Header)
				}
				if row.name != "a good token" || len(reached) != 1 {
					continue
				}
				got := reached[0].Header
				if got.Get("Stepward-Subject") != "ann" || got.Get("Stepward-Scopes") != "wallet:export" || got.Get(elevatedHeader) != "" {
					t.Errorf("the backend was told %v", got)
				}
				again := s.through(f, c)
				if again.Status != f.status(403) || codeOf(again) != "elevated_access_token_consumed" || s.backend.Executions(path) != 1 {
					t.Errorf("a second use: %d %q, %d executions", again.Status, codeOf(again), s.backend.Executions(path))
				}
			}
		})
	}
	t.Run("bodies", func(t *testing.T) { s.bodies(t) })
	t.Run("spoofs", func(t *testing.T) { s.spoofs(t) })
	t.Run("attacks", func(t *testing.T) { s.attacks(t) })
	t.Run("retries", func(t *testing.T) { s.retries(t) })
	t.Run("race", func(t *testing.T) { s.race(t) })
	t.Run("streams", func(t *testing.T) { s.streams(t) })
	t.Run("sockets", func(t *testing.T) { s.sockets(t) })
	t.Run("uploads", func(t *testing.T) { s.uploads(t) })
	t.Run("accessLog", func(t *testing.T) { s.accessLog(t) })
	t.Run("gRPC", func(t *testing.T) { s.grpc(t) })
	t.Run("noLedger", func(t *testing.T) { s.noLedger(t) })
	t.Run("stopped", func(t *testing.T) { s.stopped(t) })
	t.Run("judged", func(t *testing.T) { s.judged(t) })
}

// Whatever arrived at the backend has a decision of its own that let it pass, came where it was judged for, and has nothing with it that was
// to stay behind.
func (s *street) judged(t *testing.T) {
	decided := map[string]decisionlog.Record{}
	for line := range strings.Lines(s.file("decisions.jsonl")) {
		var r decisionlog.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Phase == "decision" {
			decided[r.DecisionID] = r
		}
	}
	arrivals := s.origin.since(0)
	if len(arrivals) < 100 {
		t.Fatalf("only %d requests arrived", len(arrivals))
	}
	for _, r := range arrivals {
		ids := r.Header["Stepward-Decision-Id"]
		if len(ids) != 1 {
			t.Errorf("%s %s arrived with the decisions %q", r.Method, r.RequestURI, ids)
			continue
		}
		d := decided[ids[0]]
		delete(decided, ids[0]) // it was for one request
		if d.Outcome != "allow" || d.Method != r.Method || !routed(d.Route, r) {
			t.Errorf("%s %s arrived, judged as %q: %s %s", r.Method, r.RequestURI, d.Route, d.Outcome, d.Reason)
		}
		for name, values := range r.Header {
			meant := http.CanonicalHeaderKey(nameMark.ReplaceAllString(name, "-"))
			switch {
			case meant == elevatedHeader, meant == "X-Mfa-Auth-Token",
				strings.HasPrefix(meant, "Stepward-") && (meant != name || len(values) != 1),
				name == "Upgrade" && !strings.HasSuffix(r.URL.Path, "/socket"):
				t.Errorf("%s %s arrived with %s: %q", r.Method, r.RequestURI, name, values)
			}
		}
	}
}

var nameMark = regexp.MustCompile(`[^A-Za-z0-9-]`)

// routed reports whether a request is one of the route that a decision names. A preflight's names none.
func routed(route string, r *http.Request) bool {
	if route == "" {
		return r.Method == http.MethodOptions
	}
	mux := http.NewServeMux()
	mux.HandleFunc(route, http.NotFound)
	_, pattern := mux.Handler(r)
	return pattern == route
}

// An operation that the body decides is judged alike at every door: where a proxy shows no body, its configuration sends these paths through
// Stepward's own door.
func (s *street) bodies(t *testing.T) {
	post := func(path, session, body string) callOf {
		return callOf{method: "POST", path: s.issuer.Prefix() + path, session: session, body: body, header: map[string]string{"Content-Type": "application/json"}}
	}
	const verify, ids = "/emailVerifications/verify", `"verificationUUID":"x","verificationToken":"y"`
	ann := s.session("ann")
	for _, row := range []struct {
		name   string
		call   callOf
		status int
		code   string
	}{
		{"signing in", post("/emailVerifications/signin", "", "{"+ids+"}"), 422, "invalid_email_verification"},
		{"asking for a step-up", post(verify, ann, "{"+ids+`,"requestedScopes":["wallet:export"]}`), 422, "invalid_email_verification"},
		{"linking", post(verify, ann, "{"+ids+"}"), 403, "elevated_access_token_required"},
		{"asking for too much", post(verify, ann, "{"+ids+`,"requestedScopes":["console:sso:update"]}`), 403, "forbidden"},
		{"two readings", post(verify, ann, `{"requestedScopes":["wallet:export"],"requestedScopes":[]}`), 400, "body_unreadable"},
		{"too long", post(verify, ann, "{"+ids+`,"requestedScopes":["wallet:export"],"pad":"`+strings.Repeat("x", 100<<10)+`"}`), 413, "body_too_large"},
		{"nothing", post(verify, ann, ""), 403, "elevated_access_token_required"},
	} {
		for _, f := range s.fronts {
			status, code := row.status, row.code
			if f.name == "envoy-http" && row.name == "nothing" { // which tells it like a body that it does not show
				status, code = 400, "body_unreadable"
			}
			before := s.origin.count()
			a := s.through(f, row.call)
			reached := len(s.origin.since(before))
			if a.Status != status || a.Code != code || (reached == 1) != (status == 422) {
				t.Errorf("%s, %s: got %d %q, %d reached the backend; want %d %q", f.name, row.name, a.Status, a.Code, reached, status, code)
			}
		}
	}
}

// The first command of each guide works as pasted: each proxy takes its example, and Stepward the file beside it.
func TestExamplesAreTakenAsTheyAre(t *testing.T) {
	root, bin := must(filepath.Abs("../..")), t.TempDir()
	for name, program := range map[string]string{
		"stepward": must(os.Executable()), "envoy": testkit.Part(t, root+"/.work/venv/bin/envoy"), "caddy": testkit.Part(t, root+"/.work/bin/caddy"),
		"nginx": testkit.Part(t, "nginx", "/usr/sbin/nginx"), "haproxy": testkit.Part(t, "haproxy", "/usr/sbin/haproxy"),
	} {
		if err := os.Symlink(program, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	guides := must(filepath.Glob(root + "/docs/doors/[a-z]*.md"))
	if len(guides) != 5 {
		t.Fatal(guides)
	}
	for _, guide := range guides {
		_, command, _ := strings.Cut(string(must(os.ReadFile(guide))), "\n    ")
		command, _, _ = strings.Cut(command, "\n")
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "-p /tmp ", "-p "+t.TempDir()+" ", 1))
		cmd.Dir, cmd.Env = root, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asProgram+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "configuration and policy are good") {
			t.Errorf("%s: %s: %v\n%s", filepath.Base(guide), command, err, out)
		}
	}
}

// Each example's two files speak of the same doors, and its proxy waits longer for an answer than the ledger may take: a late yes has spent
// a token for nothing.
func TestExamplesAgree(t *testing.T) {
	for _, row := range []struct {
		file, patience string // a pattern of the duration; "" where there is no choice
	}{
		{"envoy/envoy.yaml", `timeout: (\w+) # 200ms by itself`},
		{"envoy/envoy-http.yaml", `cluster: stepward, timeout: (\w+)`},
		{"nginx/nginx.conf", `proxy_read_timeout (\w+); # more`},
		{"caddy/Caddyfile", `response_header_timeout (\w+) `},
		{"traefik/dynamic.yaml", ""},
		{"haproxy/haproxy.cfg", ""},
	} {
		path := "../../examples/" + row.file
		text, ours := string(must(os.ReadFile(path))), filepath.Dir(path)+"/stepward.yaml"
		for _, port := range []string{"9191", "9192", "8080", "8081"} {
			if strings.Contains(text, port) && !strings.Contains(string(must(os.ReadFile(ours))), "127.0.0.1:"+port) {
				t.Errorf("%s: Stepward does not listen at %s", row.file, port)
			}
		}
		if row.patience == "" {
			continue
		}
		c := must(config.Load(ours, config.LoadOptions{}))
		found := regexp.MustCompile(row.patience).FindStringSubmatch(text)
		if found == nil || must(time.ParseDuration(found[1])) < c.LedgerOptions.ReserveTimeout+c.ExtAuthz.SpendBudget {
			t.Errorf("%s waits %q, the ledger may take %s", row.file, found, c.LedgerOptions.ReserveTimeout)
		}
	}
}

// Each example that asks without showing bodies knows the paths that the shipped policy decides by them.
func TestExamplesKnowWhatTheBodyDecides(t *testing.T) {
	var data struct {
		Mount  string
		Routes map[string]struct {
			ReadBody int `yaml:"read_body"`
		}
	}
	if err := yaml.Unmarshal(must(fs.ReadFile(rego.FS, "data.yaml")), &data); err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("/\\(verify\\|[^\"`\\s]+")
	parameter := regexp.MustCompile(`\{[^}]+\}`)
	for _, name := range []string{"nginx/nginx.conf", "caddy/Caddyfile", "traefik/dynamic.yaml"} {
		paths, n := regexp.MustCompile(quoted.FindString(string(must(os.ReadFile("../../examples/"+name))))), 0
		for pattern, route := range data.Routes {
			if route.ReadBody == 0 {
				continue
			}
			_, path, _ := strings.Cut(pattern, " ")
			if n++; !paths.MatchString(data.Mount + parameter.ReplaceAllString(path, "x")) {
				t.Errorf("%s: %s does not match %s", name, paths, pattern)
			}
		}
		if n == 0 {
			t.Error("the shipped policy decides nothing by a body")
		}
	}
}

// raw sends bytes and returns the status of the answer, 0 if there is none.
func raw(t *testing.T, address, text string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// What a client says under the names of verified facts, and under those that only a proxy may use, never reaches the backend: neither where
// the door asks, nor where it sends what the body decides.
func (s *street) spoofs(t *testing.T) {
	rules := must(s.service.newRules())
	prefix := s.issuer.Prefix()
	requests := []struct{ head, body, subject string }{
		{"GET " + prefix + "/users HTTP/1.1\r\nAuthorization: Bearer " + s.session("ann"), "", "ann"},
		{"POST " + prefix + "/emailVerifications/signin HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2", "{}", ""},
	}
	for _, f := range s.fronts {
		believed := f == s.fronts[0] // Stepward itself takes this client for a proxy that it trusts
		withheld := rules.Withheld(believed)
		if !believed {
			withheld = append(withheld, "X-Request-Id")
			for _, name := range []string{"For", "Host", "Port", "Prefix", "Proto", "Scheme", "Server", "Ssl"} {
				withheld = append(withheld, "X-Forwarded-"+name)
			}
		}
		for _, row := range []struct {
			name   string
			fields []string
			passes bool // no proxy has a reason to refuse it
		}{
			{"one", []string{"Stepward-Subject", "Stepward-Scopes", "Stepward-Decision-Id", "Stepward-Environment"}, true},
			{"two", []string{"Stepward-Subject", "Stepward-Subject", "Stepward-Scopes", "Stepward-Scopes"}, true},
			{"withheld", withheld, true},
			{"underscores", []string{"Stepward_Subject", "Stepward_Scopes", "X_Http_Method_Override"}, false},
			{"dots", []string{"Stepward.Subject"}, false},
			{"dots in an override", []string{"X.Http.Method.Override"}, false},
			{"dots in a token", []string{"X.Dyn.Elevated.Access.Token"}, false},
			{"Envoy's words", []string{"X-Envoy-Auth-Partial-Body: false", "X-Envoy-Auth-Headers-To-Remove: authorization"}, true},
		} {
			for _, request := range requests {
				text := request.head + "\r\nHost: wallet.example\r\nConnection: close\r\n"
				for _, field := range row.fields {
					if !strings.Contains(field, ":") {
						field += ": mallory-0001"
					}
					text += field + "\r\n"
				}
				before := s.origin.count()
				status := raw(t, f.address, text+"\r\n"+request.body)
				reached := s.origin.since(before)
				if len(reached) > 1 || len(reached) == 0 && (row.passes || status < 400) {
					t.Errorf("%s, %s: %d, and %d reached the backend", f.name, row.name, status, len(reached))
				}
				for _, r := range reached {
					if got := strings.Join(r.Header["Stepward-Subject"], ", "); got != request.subject {
						t.Errorf("%s, %s: the subject is %q, want %q", f.name, row.name, got, request.subject)
					}
					for field, values := range r.Header {
						if strings.Contains(strings.Join(values, " "), "mallory") {
							t.Errorf("%s, %s: the backend got %s: %q", f.name, row.name, field, values)
						}
					}
				}
			}
		}
	}
}

// Targets that some servers read as an export. None of them may reach it without a token.
func (s *street) attacks(t *testing.T) {
	export := s.wallet("ann")
	dir, last := export[:strings.LastIndexByte(export, '/')], export[strings.LastIndexByte(export, '/')+1:]
	prefix := s.issuer.Prefix()
	targets := map[string]string{
		"dots": prefix + "/networks/../" + strings.TrimPrefix(export, prefix+"/"), "encoded dots": prefix + "/networks/%2e%2e/" + strings.TrimPrefix(export, prefix+"/"),
		"an encoded slash": dir + "%2f" + last, "a doubled slash": "/" + export, "a slash more": export + "/", "an inner slash": dir + "//" + last,
		"a matrix parameter": export + ";a=b", "a parameter in the middle": dir + ";a=b/" + last, "a backslash": dir + "\\" + last,
		"an encoded backslash": dir + "%5c" + last, "another case": strings.ToUpper(export[:7]) + export[7:], "another case at the end": dir + "/" + strings.ToUpper(last),
		"an encoded letter": dir + "/%65xport", "a null": export + "%00", "a fragment": export + "#x", "a dot": dir + "/./" + last,
		"dots encoded twice": prefix + "/networks/%252e%252e/" + strings.TrimPrefix(export, prefix+"/"), "overlong UTF-8": dir + "%c0%af" + last,
		"a line break": export + "%0d%0aX:y", "a null and a suffix": export + "%00.png", "a blank": export + "%20", "a dot behind": export + ".",
		"an encoded question mark": export + "%3f", "a query of two readings": export + "?a=1;b=2",
		"a whole URL": "http://wallet.example" + export, "a whole URL of another": "http://other.example" + export, "a star": "*",
	}
	const head = " HTTP/1.1\r\nHost: wallet.example\r\nContent-Length: 2\r\nContent-Type: application/json\r\nStepward-Subject: ann\r\n"
	ann := "Authorization: Bearer " + s.session("ann") + "\r\n"
	for _, f := range s.fronts {
		requests := map[string]string{"post": "post " + export, "PUT": "PUT " + export}
		for name, target := range targets {
			requests[name] = "POST " + target
		}
		for name, request := range requests {
			if status := raw(t, f.address, request+head+ann+"Connection: close\r\n\r\n{}"); status < 400 {
				t.Errorf("%s, %s: %d", f.name, name, status)
			}
		}
		for name, lines := range map[string]string{
			"two tokens":         elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\n" + elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\n",
			"an underscore":      "X_Dyn_Elevated_Access_Token: " + s.elevated("ann", "wallet:export") + "\r\n",
			"removed on the way": elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\nConnection: close, Authorization\r\n",
			"two sessions":       elevatedHeader + ": " + s.elevated("ann", "wallet:export") + "\r\nAuthorization: Bearer " + s.session("bob") + "\r\n",
			"another tunnel":     elevatedHeader + ": " + s.elevated("ann", "credential:link") + "\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
		} {
			if name == "removed on the way" && f.name == "nginx" {
				continue // which sends the field on, so that its good token is good
			}
			before := s.backend.Executions(export)
			status := raw(t, f.address, "POST "+export+head+ann+lines+"\r\n{}")
			if status < 400 || s.backend.Executions(export) != before {
				t.Errorf("%s, %s: %d, %d executions", f.name, name, status, s.backend.Executions(export)-before)
			}
		}
	}
	s.smuggle(export)
	if n := s.backend.Executions(export); n != 0 {
		t.Errorf("%d exports reached the backend", n)
	}
	for _, r := range s.origin.since(0) {
		if strings.Contains(strings.ToLower(r.RequestURI), strings.ToLower(dir)) && r.RequestURI != export {
			t.Errorf("the backend got %s", r.RequestURI)
		}
	}
}

// smuggle hides an export behind requests that anybody may make and whose end two readers see in different places.
func (s *street) smuggle(export string) {
	hidden := "0\r\n\r\nPOST " + export + " HTTP/1.1\r\nHost: wallet.example\r\nStepward-Subject: ann\r\nContent-Length: 0\r\n\r\n"
	var wg sync.WaitGroup
	for _, f := range s.fronts {
		for _, ends := range []string{
			"Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: xchunked",
			"Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding : chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
		} {
			for _, path := range []string{"/emailVerifications/create", "/emailVerifications/signin"} {
				wg.Go(func() {
					c, err := net.Dial("tcp", f.address)
					if err != nil {
						return
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(time.Second)) // some wait for more
					_, _ = io.WriteString(c, "POST "+s.issuer.Prefix()+path+" HTTP/1.1\r\nHost: wallet.example\r\nContent-Type: application/json\r\n"+ends+"\r\n\r\n"+hidden)
					_, _ = io.Copy(io.Discard, c) // whatever is answered: the backend tells
				})
			}
		}
	}
	wg.Wait()
}

// What was let pass is sent once: whatever the backend answers, and where it answers nothing.
func (s *street) retries(t *testing.T) {
	for _, f := range s.fronts {
		for _, path := range []string{"/busy", "/dead"} {
			s.through(f, callOf{method: "GET", path: s.issuer.Prefix() + "/users", session: s.session("ann")}) // leaves a connection to use again
			before := s.origin.count()
			a := s.through(f, callOf{method: "POST", path: s.issuer.Prefix() + path, session: s.session("ann"), header: map[string]string{
				"X-Envoy-Retry-On": "5xx,reset", "X-Envoy-Max-Retries": "3", "X-Idempotency-Key": "1",
			}})
			if n := s.origin.count() - before; n != 1 || a.Status < 500 {
				t.Errorf("%s, %s: %d, the backend was asked %d times", f.name, path, a.Status, n)
			}
		}
	}
}

// One token, 64 requests, through all doors at once: one of them is carried out.
func (s *street) race(t *testing.T) {
	for range 3 {
		path, session, token := s.wallet("ann"), s.session("ann"), s.elevated("ann", "wallet:export")
		var wg sync.WaitGroup
		passed := make(chan string, 64)
		for i := range 64 {
			f := s.fronts[i%len(s.fronts)]
			r := s.request(callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: session, elevated: token})
			r.URL.Host = f.address
			wg.Go(func() {
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK {
					passed <- f.name
				}
			})
		}
		wg.Wait()
		if n := s.backend.Executions(path); n != 1 || len(passed) != 1 {
			t.Errorf("%d executions, %d passed", n, len(passed))
		}
	}
}

// The first event of a ceremony is there before the last is sent, also where the body decides.
func (s *street) streams(t *testing.T) {
	wallet := must(s.backend.CreateWallet("ann")).ID
	for _, f := range s.fronts {
		for path, body := range map[string]string{"/waas/" + wallet + "/signMessage": `{"message":"m"}`, "/waas/create": `{"chain":"SVM"}`} {
			r := s.request(callOf{method: "POST", path: s.issuer.Prefix() + path, body: body, session: s.session("ann"),
				header: map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}})
			r.URL.Host = f.address
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(res.Body)
			first, err := lines.ReadString('\n')
			at := time.Now()
			rest, err2 := io.ReadAll(lines)
			_ = res.Body.Close()
			if took := time.Since(at); err != nil || err2 != nil || res.StatusCode != http.StatusOK || took < 100*time.Millisecond || !strings.Contains(string(rest), "ceremony_complete") {
				t.Errorf("%s, %s: %d %q, the rest %s later: %s (%v, %v)", f.name, path, res.StatusCode, first, took, rest, err, err2)
			}
		}
	}
}

func (s *street) sockets(t *testing.T) {
	for _, f := range s.fronts {
		for _, protocol := range []string{"websocket", "h2c"} { // where the policy allows none; judged looks at what arrived
			raw(t, f.address, "GET "+s.issuer.Prefix()+"/users HTTP/1.1\r\nHost: wallet.example\r\nConnection: Upgrade\r\nUpgrade: "+protocol+
				"\r\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-Websocket-Version: 13\r\nAuthorization: Bearer "+s.session("ann")+"\r\n\r\n")
		}
		if f.name == "traefik, replayed" {
			continue // which tells nobody of an upgrade: its configuration removes it
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		url := "ws://" + f.address + s.issuer.Prefix() + "/socket"
		dial := func(session string) (*websocket.Conn, *http.Response, error) {
			return websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + session}}})
		}
		c, _, err := dial(s.session("ann"))
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			cancel()
			continue
		}
		_ = c.Write(ctx, websocket.MessageText, []byte("hello")) // the read tells
		if _, echo, err := c.Read(ctx); err != nil || string(echo) != "hello" {
			t.Errorf("%s: %q, %v", f.name, echo, err)
		}
		_ = c.CloseNow()
		if _, res, err := dial("none"); err == nil || res == nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: a bad session: %v %v", f.name, res, err)
		}
		cancel()
	}
}

func (s *street) uploads(t *testing.T) {
	body := strings.Repeat("x", 2<<20)
	for _, f := range s.fronts {
		a := s.through(f, callOf{method: "POST", path: s.issuer.Prefix() + "/upload", body: body, session: s.session("ann")})
		if a.Status != 200 || !strings.Contains(a.Body, `{"bytes":2097152,"error":"<nil>"}`) {
			t.Errorf("%s: %d %.200s", f.name, a.Status, a.Body)
		}
	}
}

// A gRPC client's refusal is HTTP 200, which would be a yes to a proxy that asks over HTTP.
func (s *street) grpc(t *testing.T) {
	for _, f := range s.fronts {
		path := s.wallet("ann")
		a := s.through(f, callOf{method: "POST", path: path, session: s.session("ann"), header: map[string]string{"Content-Type": "application/grpc"}})
		if (a.Status == 200) != f.whole || f.whole && a.Header.Get("Grpc-Status") != "7" || !f.whole && a.Status != 403 || s.backend.Executions(path) != 0 {
			t.Errorf("%s: %d %v, %d executions", f.name, a.Status, a.Header, s.backend.Executions(path))
		}
	}
}

// A ledger that fails lets nobody through, and a client that is told so learns when to come back.
func (s *street) noLedger(t *testing.T) {
	if err := s.service.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.fronts {
		path := s.wallet("ann")
		a := s.through(f, callOf{method: "POST", path: path, body: "{}", session: s.session("ann"), elevated: s.elevated("ann", "wallet:export")})
		if a.Status != f.status(503) || codeOf(a) != "consumption_store_unavailable" || a.Header.Get("Retry-After") == "" || s.backend.Executions(path) != 0 {
			t.Errorf("%s: %d %v %s, %d executions", f.name, a.Status, a.Header, a.Body, s.backend.Executions(path))
		}
	}
}

// A Stepward that does not answer lets nothing through, and one that is back does.
func (s *street) stopped(t *testing.T) {
	extAuthz, forwardAuth, door := s.service.extAuthz.String(), s.service.forwardAuth.String(), s.service.Addr().String()
	adminAt := s.service.AdminAddr().String()
	read := callOf{method: "GET", path: s.issuer.Prefix() + "/users", session: s.session("ann")}
	signIn := callOf{method: "POST", path: s.issuer.Prefix() + "/emailVerifications/signin", body: "{}"}
	s.stop()
	before := s.origin.count()
	for _, f := range s.fronts[1:] {
		if a, b := s.through(f, read), s.through(f, signIn); a.Status != f.away || b.Status != f.awayBody {
			t.Errorf("%s: %d and %d without a Stepward, want %d and %d", f.name, a.Status, b.Status, f.away, f.awayBody)
		}
	}
	if n := s.origin.count() - before; n != 0 {
		t.Errorf("%d requests reached the backend without a Stepward", n)
	}
	s.start("listen: "+door, "admin: {listen: "+adminAt+"}", "upstream: "+s.origin.server.URL, "ext_authz: {listen: "+extAuthz+"}", "forward_auth: {listen: "+forwardAuth+"}",
		"trusted_proxies: [127.0.0.1/32]", "policy: {path: "+filepath.Join(s.dir, "policy")+"}")
	for _, f := range s.fronts[1:] {
		s.eventually(f.name+" finds Stepward again", func() bool { return s.through(f, read).Status == 200 })
	}
}

// Envoy's access log says what was decided.
func (s *street) accessLog(t *testing.T) {
	envoy := s.fronts[1]
	a := s.through(envoy, callOf{method: "POST", path: s.wallet("ann"), body: "{}", session: s.session("ann")})
	var body struct {
		ID string `json:"decision_id"`
	}
	_ = json.Unmarshal([]byte(a.Body), &body) // an empty id is not found
	want := `"decision_id":"` + body.ID + `"`
	s.eventually("the access log has "+want, func() bool {
		for line := range strings.Lines(envoy.program.Output()) {
			if body.ID != "" && strings.Contains(line, want) {
				return strings.Contains(line, `"operation":"wallet.export"`) && strings.Contains(line, `"reason":"elevated_access_token_required"`)
			}
		}
		return false
	})
}

// What failure_mode_allow does: without a Stepward Envoy forwards everything, unjudged. A Stepward that is there and in trouble
// still refuses, since that is an answer and no failure.
func TestFailureModeAllowIsAnOpenDoor(t *testing.T) {
	s := emptyStreet(t)
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}", "trusted_proxies: [127.0.0.1/32]",
		"ledger_options: {capacity: 1}")
	program := s.part(".work/venv/bin/envoy")
	for _, config := range []string{"envoy.yaml", "envoy-http.yaml"} {
		file, address := s.example("envoy/" + config)
		text := strings.Replace(string(must(os.ReadFile(file))), "failure_mode_allow: false", "failure_mode_allow: true", 1)
		file = s.write("front/open.yaml", text)
		s.fronts = append(s.fronts, &front{
			name: config, address: address,
			program: testkit.StartProgram(t, s.dir, address, program, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error"),
		})
	}
	export := func() callOf {
		return callOf{method: "POST", path: s.wallet("ann"), body: "{}", session: s.session("ann"), elevated: s.elevated("ann", "wallet:export")}
	}
	s.do(export()) // the one that the ledger has room for
	for _, f := range s.fronts {
		before := s.origin.count()
		a := s.through(f, export())
		if codeOf(a) != "consumption_store_unavailable" || a.Status < 400 || s.origin.count() != before {
			t.Errorf("%s with a full ledger: %d %s", f.name, a.Status, a.Body)
		}
	}
	requests := map[*front]*http.Request{}
	for _, f := range s.fronts {
		requests[f] = s.request(callOf{method: "POST", path: s.wallet("ann"), body: "{}"}) // by nobody, with nothing
		requests[f].URL.Host = f.address
	}
	s.stop()
	for f, r := range requests {
		before := s.origin.count()
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if s.origin.count() != before+1 {
			t.Errorf("%s: failure_mode_allow no longer forwards what nobody judged: say so in docs/doors/envoy.md", f.name)
		}
	}
}

// What the guide has a route of Envoy's say takes effect.
func TestWhatARouteOfEnvoysSays(t *testing.T) {
	s := emptyStreet(t)
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}", "trusted_proxies: [127.0.0.1/32]")
	_, snippet, _ := strings.Cut(string(must(os.ReadFile("../../docs/doors/envoy.md"))), "```yaml\n")
	snippet, _, _ = strings.Cut(snippet, "```")
	address := s.envoyWith("\n" + snippet)
	a := s.through(&front{address: address}, callOf{method: "GET", path: s.issuer.Prefix() + "/users", session: s.session("ann")})
	if a.Code != "environment_mismatch" || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("another environment and profile: %d %v %s", a.Status, a.Header, a.Body)
	}
}

// envoyWith starts the example with more said about its route, and returns where it listens.
func (s *street) envoyWith(snippet string) (address string) {
	s.t.Helper()
	file, address := s.example("envoy/envoy.yaml")
	const route = "route: {cluster: backend, timeout: 0s}"
	indent := "\n" + strings.Repeat(" ", 26)
	text := strings.Replace(string(must(os.ReadFile(file))), route, route+indent+strings.ReplaceAll(strings.TrimSpace(snippet), "\n", indent), 1)
	file = s.write("front/route.yaml", text)
	testkit.StartProgram(s.t, s.dir, address, s.part(".work/venv/bin/envoy"), "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error")
	return address
}

// Envoy takes Transfer-Encoding away before it asks: where it does not show bodies, a chunked one looks like none.
func TestAnEnvoyThatShowsNoBodies(t *testing.T) {
	s := emptyStreet(t)
	s.start("upstream: "+s.origin.server.URL, "ext_authz: {listen: 127.0.0.1:0}", "forward_auth: {listen: 127.0.0.1:0}", "trusted_proxies: [127.0.0.1/32]")
	address := s.envoyWith(`typed_per_filter_config:
  envoy.filters.http.ext_authz:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
    check_settings: {disable_request_body_buffering: true}`)
	const body = `{"verificationUUID":"x","verificationToken":"y","requestedScopes":["console:sso:update"]}`
	head := "POST " + s.issuer.Prefix() + "/emailVerifications/verify HTTP/1.1\r\nHost: wallet.example\r\nContent-Type: application/json\r\nAuthorization: Bearer " +
		s.session("ann") + "\r\n"
	for name, rest := range map[string]string{
		"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		"chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
	} {
		before := s.origin.count()
		if status := raw(t, address, head+rest); status != http.StatusBadRequest || s.origin.count() != before {
			t.Errorf("%s: got %d, %d reached the backend", name, status, s.origin.count()-before)
		}
	}
}
