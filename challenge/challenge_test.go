package challenge

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/policy"
)

var update = flag.Bool("update", false, "write golden files and the tables of docs/challenges.md anew")

func newWriter(t testing.TB, change func(*Config)) *Writer {
	t.Helper()
	c := Config{
		Realm: "wallet", TypeBase: "urn:stepward:problem:", Domain: "stepward.dev", ACRValues: []string{"phr"},
		Methods: []string{"totp", "passkey", "email"}, TokenHeader: "x-dyn-elevated-access-token", MFAHeader: "x-mfa-auth-token",
		Vary: []string{"X-Dyn-Elevated-Access-Token", "X-Dyn-Version", "X-Dyn-Api-Version"}, SessionScope: "user:basic",
		VerifyURL: "https://app.example/verify",
		CORS:      CORS{AllowedOrigins: []string{"https://app.example"}, AllowCredentials: true},
	}
	if change != nil {
		change(&c)
	}
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// verdictFor is a verdict as the gate makes it for the reason.
func verdictFor(why reason.Reason) *gate.Verdict {
	v := &gate.Verdict{
		Reason: why, DecisionID: "0123456789abcdef0123456789abcdef", RequestID: "req-1", Environment: "env", Subject: "user",
		TokenState: gate.TokenAbsent, DeviceState: policy.Registered, Allowed: []string{"GET", "POST"},
		Requirement: &policy.Requirement{
			Operation: "wallet.export", Session: true, Scopes: []policy.Choice{{"wallet:export"}}, Token: policy.SingleUse,
			MaxAge: 5 * time.Minute, MinimumAPIVersion: apiversion.StepUp,
		},
	}
	switch why {
	case reason.ElevatedTokenInsufficientScope:
		v.TokenState = gate.TokenUnused
		v.Requirement.Scopes = []policy.Choice{{"wallet:export"}, {"wallet:delegate", "wallet:refresh"}}
	case reason.ElevatedTokenConsumed, reason.MFATokenConsumed, reason.UpstreamUnknownOutcome:
		v.TokenState = gate.TokenConsumed
	case reason.ConsumptionStoreUnavailable, reason.UpstreamUnreachable, reason.DecisionLogUnavailable:
		v.TokenState = gate.TokenUnused
	case reason.ConsumptionStateUnknown:
		v.TokenState = gate.TokenUnknown
	case reason.DeviceVerificationRequired:
		v.DeviceState = policy.Unregistered
	case reason.APIVersionBelowFloor:
		v.ReceivedVersion = "2026_01_01"
	case reason.SDKVersionTooOld:
		v.SDK, v.ReceivedVersion = "WalletKit", "4.75.0"
		v.Requirement.MinimumSDK = map[string]apiversion.Release{"WalletKit": "4.76.0"}
	case reason.Forbidden:
		v.Requirement.Deny = &policy.Denial{Code: "office_hours", Message: "Exports are possible on working days."}
	}
	switch why {
	case reason.MFATokenRequired, reason.MFATokenInvalid, reason.MFATokenConsumed:
		v.Requirement = &policy.Requirement{Operation: "wallet.export", Session: true, MFAAction: "wallet.waas.export"}
	case reason.InvalidRequest, reason.AmbiguousRequest, reason.MethodNotAllowed, reason.RouteUnmatched, reason.PolicyError:
		v.Requirement = nil
	}
	if why == reason.MFATokenRequired { // an elevated token would do
		v.Requirement.Scopes, v.Requirement.Token, v.Requirement.MaxAge = []policy.Choice{{"wallet:export"}}, policy.SingleUse, 5*time.Minute
	}
	return v
}

func request(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/v0/sdk/env/waas/w/privateKey/export?client=text", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func answer(w *Writer, r *http.Request, v *gate.Verdict) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.Write(rec, r, v)
	return rec
}

// dump is a response as text: status, sorted fields, indented body. Retry-After is jittered and left out.
func dump(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", rec.Code)
	for _, name := range slices.Sorted(maps.Keys(rec.Header())) {
		value := strings.Join(rec.Header()[name], " | ")
		switch name {
		case "Retry-After":
			value = "1..5"
		case "Content-Length":
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	if rec.Body.Len() > 0 {
		b.WriteByte('\n')
		var indented bytes.Buffer
		if err := json.Indent(&indented, rec.Body.Bytes(), "", "  "); err != nil {
			t.Fatalf("body is not JSON: %v\n%s", err, rec.Body)
		}
		b.Write(indented.Bytes())
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for _, why := range reason.All() {
		t.Run(string(why), func(t *testing.T) {
			var b strings.Builder
			for _, form := range []struct {
				name    string
				profile Profile
				header  []string
			}{
				{"profile sdk", ProfileSDK, []string{"Origin", "https://app.example"}},
				{"profile rfc9470", ProfileRFC9470, nil},
				{"gRPC, profile sdk", ProfileSDK, []string{"Content-Type", "application/grpc+proto"}},
				{"gRPC-Web, profile rfc9470", ProfileRFC9470, []string{"Content-Type", "application/grpc-web"}},
			} {
				w := newWriter(t, func(c *Config) { c.Profile = form.profile })
				fmt.Fprintf(&b, "== %s\n%s\n", form.name, dump(t, answer(w, request(form.header...), verdictFor(why))))
			}
			compare(t, filepath.Join("testdata", string(why)+".golden"), b.String())
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./challenge -args -update, if that is meant), first in\n%s", file, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d: %s", i+1, g[i])
		}
	}
	return "its end"
}

func TestEveryReasonHasOneRow(t *testing.T) {
	var inTable []reason.Reason
	for _, r := range table {
		inTable = append(inTable, r.reason)
		if r.sdk < 400 || r.grpc == 0 || r.kind == "" || r.title == "" {
			t.Errorf("%s: a member of its row is missing", r.reason)
		}
	}
	if !slices.Equal(inTable, reason.All()) {
		t.Errorf("the table and reason.All differ:\n%v\n%v", inTable, reason.All())
	}
}

// What every refusal keeps, whatever its reason.
func TestEveryRefusal(t *testing.T) {
	for _, profile := range []Profile{ProfileSDK, ProfileRFC9470} {
		w := newWriter(t, func(c *Config) { c.Profile = profile })
		for _, why := range reason.All() {
			rec := answer(w, request("Origin", "https://app.example"), verdictFor(why))
			h := rec.Header()
			if h.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: may be cached", why)
			}
			if n := len(h.Values("WWW-Authenticate")); n > 1 {
				t.Errorf("%s: %d WWW-Authenticate fields, want at most one", why, n)
			}
			if rec.Code == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: 401 without WWW-Authenticate (RFC 9110 section 11.6.1)", why)
			}
			if rec.Code == http.StatusMethodNotAllowed && h.Get("Allow") == "" {
				t.Errorf("%s: 405 without Allow (RFC 9110 section 15.5.6)", why)
			}
			if rec.Code == http.StatusServiceUnavailable {
				if s, err := strconv.Atoi(h.Get("Retry-After")); err != nil || s < 1 || s > 5 {
					t.Errorf("%s: Retry-After %q, want 1 to 5", why, h.Get("Retry-After"))
				}
			}
			if rec.Body.Len() >= maxBody {
				t.Errorf("%s: body has %d bytes", why, rec.Body.Len())
			}
			var body struct{ Error, Code string }
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || body.Error == "" || body.Code != string(why) {
				t.Errorf("%s: error and code must be strings at top level: %v %s", why, err, rec.Body)
			}
			if isStepUp := strings.HasPrefix(string(why), "elevated_access_token"); isStepUp &&
				!strings.Contains(strings.ToLower(body.Error), "elevated access token") {
				t.Errorf("%s: integrators look for the phrase in %q", why, body.Error)
			}
			d, err := httpsfv.UnmarshalDictionary(h.Values("Step-Up-Challenge"))
			if err != nil {
				t.Errorf("%s: Step-Up-Challenge %q: %v", why, h.Get("Step-Up-Challenge"), err)
				continue
			}
			if code, ok := d.Get("code"); !ok || code.(httpsfv.Item).Value != httpsfv.Token(why) {
				t.Errorf("%s: the mirror's code is %v", why, code)
			}
			if list, ok := d.Get("scope"); strings.Contains(rec.Body.String(), "required_scopes") &&
				(!ok || list.(httpsfv.InnerList).Items[0].Value != "wallet:export") {
				t.Errorf("%s: the mirror lacks the scope: %q", why, h.Get("Step-Up-Challenge"))
			}
			for name, values := range h {
				for _, value := range values {
					if strings.ContainsAny(value, "\r\n") || strings.Contains(value, "client=text") {
						t.Errorf("%s: %s repeats the client or breaks the line: %q", why, name, value)
					}
				}
			}
		}
	}
}

func TestZeroVerdictRefuses(t *testing.T) {
	rec := answer(newWriter(t, nil), request(), new(gate.Verdict))
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `"code":"policy_error"`) {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

func TestMediaType(t *testing.T) {
	for _, c := range []struct {
		profile      Profile
		accept, want string
	}{
		{ProfileSDK, "", "application/json"},
		{ProfileSDK, "application/json, text/plain, */*", "application/json"},
		{ProfileSDK, "text/html, Application/Problem+JSON;q=0.5", "application/problem+json"},
		{ProfileSDK, "application/problem+json; q=0", "application/json"},
		{ProfileRFC9470, "application/json", "application/problem+json"},
	} {
		w := newWriter(t, func(k *Config) { k.Profile = c.profile })
		rec := answer(w, request("Accept", c.accept), verdictFor(reason.SessionRequired))
		if got := rec.Header().Get("Content-Type"); got != c.want {
			t.Errorf("profile %s, Accept %q: %s, want %s", c.profile, c.accept, got, c.want)
		}
	}
}

func TestCORS(t *testing.T) {
	get := func(change func(*Config), method, origin string) http.Header {
		r := request("Origin", origin)
		r.Method = method
		return answer(newWriter(t, change), r, verdictFor(reason.ElevatedTokenRequired)).Header()
	}
	h := get(nil, http.MethodDelete, "https://app.example")
	if h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(strings.ToLower(h.Get("Access-Control-Expose-Headers")), "step-up-challenge") {
		t.Errorf("an allowed origin cannot read the refusal: %v", h)
	}
	for name, h := range map[string]http.Header{
		"other origin":       get(nil, http.MethodPost, "https://evil.example"),
		"suffix":             get(nil, http.MethodPost, "https://app.example.evil.example"),
		"null":               get(nil, http.MethodPost, "null"),
		"no origins":         get(func(c *Config) { c.CORS = CORS{} }, http.MethodPost, "https://app.example"),
		"no origins, *":      get(func(c *Config) { c.CORS = CORS{} }, http.MethodPost, "*"),
		"wildcard in origin": get(nil, http.MethodPost, "https://*"),
	} {
		if got := h.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: Access-Control-Allow-Origin %q", name, got)
		}
		if got := h.Values("Vary"); len(got) != 1 || !strings.Contains(got[0], "Origin") {
			t.Errorf("%s: Vary %q", name, got)
		}
	}
	if h := get(func(c *Config) { c.CORS = CORS{AllowedOrigins: []string{"*"}} }, http.MethodPost, "https://any.example"); h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("*: %v", h)
	}
}

// A policy may name more than fits: the body stays below the limit and keeps what a client cannot do without.
func TestLongPoliciesAreCut(t *testing.T) {
	v := verdictFor(reason.ElevatedTokenRequired)
	for i := range 40 {
		v.Requirement.Scopes = append(v.Requirement.Scopes, policy.Choice{fmt.Sprintf("scope:%030d", i)})
		v.Requirement.Methods = append(v.Requirement.Methods, fmt.Sprintf("method:%030d", i))
	}
	rec := answer(newWriter(t, nil), request(), v)
	if rec.Body.Len() >= maxBody {
		t.Errorf("body has %d bytes", rec.Body.Len())
	}
	if m := rec.Header().Get("Step-Up-Challenge"); len(m) > maxMirror || !strings.HasPrefix(m, "code=elevated_access_token_required, kind=step_up") {
		t.Errorf("mirror has %d bytes: %s", len(m), m)
	}
	if !json.Valid(rec.Body.Bytes()) || !strings.Contains(rec.Body.String(), `"code":"elevated_access_token_required"`) {
		t.Errorf("body: %s", rec.Body)
	}
}

func TestUpstreamTimeoutIs504(t *testing.T) {
	w := newWriter(t, nil)
	for _, c := range []struct {
		why     reason.Reason
		timeout bool
		want    int
	}{
		{reason.UpstreamUnknownOutcome, true, 504}, {reason.UpstreamUnknownOutcome, false, 502},
		{reason.UpstreamUnreachable, true, 504}, {reason.UpstreamUnreachable, false, 502}, {reason.Forbidden, true, 403},
	} {
		rec := httptest.NewRecorder()
		w.WriteUpstream(rec, request(), verdictFor(c.why), c.timeout)
		if rec.Code != c.want {
			t.Errorf("%s, timeout %v: %d, want %d", c.why, c.timeout, rec.Code, c.want)
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	w := newWriter(t, nil)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.Write(rw, r, verdictFor(reason.MethodNotAllowed)) }))
	defer s.Close()
	res, err := http.Head(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Step-Up-Challenge") == "" {
		t.Errorf("got %s %v", res.Status, res.Header)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{TypeBase: "urn:x:", Domain: "d"}
	for name, change := range map[string]func(*Config){
		"profile":     func(c *Config) { c.Profile = "soap" },
		"type base":   func(c *Config) { c.TypeBase = "" },
		"domain":      func(c *Config) { c.Domain = "" },
		"realm":       func(c *Config) { c.Realm = "a\"b" },
		"acr":         func(c *Config) { c.ACRValues = []string{"a\r\nb"} },
		"credentials": func(c *Config) { c.CORS = CORS{AllowedOrigins: []string{"*"}, AllowCredentials: true} },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

// FuzzPolicyTexts puts a policy's own words, which Rego may build from anything, into a refusal.
func FuzzPolicyTexts(f *testing.F) {
	f.Add("wallet:export", "code", "message", "4.76.0")
	f.Add("a\"b\\c", "x\r\nSet-Cookie: a=b", "\x00\xff", "é")
	w := newWriter(f, nil)
	f.Fuzz(func(t *testing.T, scope, code, message, version string) {
		for _, why := range reason.All() {
			v := verdictFor(why)
			if v.Requirement != nil {
				v.Requirement.Scopes = []policy.Choice{{scope, scope}, {scope}}
				v.Requirement.Deny = &policy.Denial{Code: code, Message: message}
				v.Requirement.MFAAction, v.Requirement.Methods = message, []string{code}
			}
			v.ReceivedVersion, v.SDK, v.RequestID = version, version, "r"
			for _, contentType := range []string{"", "application/grpc"} {
				rec := answer(w, request("Content-Type", contentType), v)
				if rec.Body.Len() >= maxBody || contentType == "" && !json.Valid(rec.Body.Bytes()) {
					t.Fatalf("%s: body of %d bytes: %s", why, rec.Body.Len(), rec.Body)
				}
				for name, values := range rec.Header() {
					for _, value := range values {
						if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
							t.Fatalf("%s: %s: %q", why, name, value)
						}
					}
				}
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w := newWriter(b, nil)
	v, r := verdictFor(reason.ElevatedTokenRequired), request("Origin", "https://app.example")
	b.ReportAllocs()
	for b.Loop() {
		w.Write(httptest.NewRecorder(), r, v)
	}
}
