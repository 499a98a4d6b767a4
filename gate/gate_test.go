package gate_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
	"github.com/stepward/stepward/token"
)

const (
	env    = "3f0c2a2e-0000-4000-8000-000000000001"
	mount  = "/api/v0/sdk/" + env
	export = mount + "/waas/w1/privateKey/export"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// store is a ledger whose every operation can be made to fail; what it does otherwise is the contract.
type store struct {
	mu    sync.Mutex
	state map[ledger.Key]string
	fail  error
	calls []string
}

func newStore() *store { return &store{state: map[ledger.Key]string{}} }

func (s *store) Reserve(_ context.Context, c ledger.Claim) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "reserve")
	if s.fail != nil {
		return s.fail
	}
	switch s.state[c.Key] {
	case "reserved":
		return ledger.ErrReserved
	case "committed":
		return ledger.ErrConsumed
	}
	s.state[c.Key] = "reserved"
	return nil
}

func (s *store) Commit(_ context.Context, k ledger.Key, _ ledger.Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "commit")
	s.state[k] = "committed"
	return s.fail
}

func (s *store) Release(_ context.Context, k ledger.Key, _ ledger.Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "release")
	if s.fail == nil {
		delete(s.state, k)
	}
	return s.fail
}

func (s *store) Stats(context.Context) (ledger.Stats, error) { return ledger.Stats{}, nil }
func (s *store) Close() error                                { return nil }

// wallet verifies the words that the tests use as tokens.
type wallet map[string]any // *token.Claims or error

func (w wallet) verify(_ context.Context, raw string) (*token.Claims, error) {
	switch v := w[raw].(type) {
	case *token.Claims:
		return v, nil
	case error:
		return nil, v
	}
	return nil, token.ErrInvalid
}

func session(scopes ...string) *token.Claims {
	return &token.Claims{
		Issuer: "app.dynamicauth.com/" + env, Subject: "alice", Environment: env, Scopes: scopes, IssuedAt: now.Add(-time.Minute),
		Expires: now.Add(time.Hour), Members: map[string]any{"sub": "alice", "scope": strings.Join(scopes, " "), "exp": json.Number("1")},
	}
}

func elevated(change func(*token.Claims)) *token.Claims {
	c := &token.Claims{
		Issuer: "app.dynamicauth.com/" + env, Subject: "alice", ID: "jti-1", Environment: env, Scopes: []string{"wallet:export"},
		SingleUse: true, IssuedAt: now.Add(-time.Minute), Expires: now.Add(4 * time.Minute),
	}
	if change != nil {
		change(c)
	}
	return c
}

// shipped is the shipped policy, loaded once.
var shipped = sync.OnceValues(func() (*policy.Engine, error) {
	return policy.New(context.Background(), policy.Config{FS: rego.FS, EvalTimeout: time.Minute}) // for machines that are busy
})

type fixture struct {
	gate     *gate.Gate
	store    *store
	sessions wallet
	elevated wallet
	mfa      wallet
	records  []decisionlog.Record
	logErr   error
}

func newFixture(t *testing.T, change func(*gate.Config)) *fixture {
	t.Helper()
	f := &fixture{store: newStore()}
	f.sessions = wallet{
		"alice": session("user:basic"), "newdevice": session("device:register"), "pending": session("requiresAdditionalAuth"),
		"kyc": session("userDataForm"), "unready": token.ErrUnavailable, "forged": token.ErrInvalid,
		"nowhere":   func() *token.Claims { c := session("user:basic"); c.Environment = ""; return c }(),
		"elsewhere": func() *token.Claims { c := session("user:basic"); c.Environment = "other"; return c }(),
	}
	f.elevated = wallet{
		"good":    elevated(nil),
		"link":    elevated(func(c *token.Claims) { c.Scopes = []string{"credential:link"}; c.SingleUse = false; c.ID = "jti-2" }),
		"bob":     elevated(func(c *token.Claims) { c.Subject = "bob" }),
		"foreign": elevated(func(c *token.Claims) { c.Environment = "other" }),
		"multi":   elevated(func(c *token.Claims) { c.SingleUse = false; c.ID = "jti-3" }),
		"old":     elevated(func(c *token.Claims) { c.IssuedAt = now.Add(-10 * time.Minute) }),
		"nojti":   elevated(func(c *token.Claims) { c.ID = ""; c.Input = [32]byte{1} }),
		"expired": &token.ExpiredError{Claims: elevated(nil)},
		"expbob":  &token.ExpiredError{Claims: elevated(func(c *token.Claims) { c.Subject = "bob" })},
		"unready": token.ErrUnavailable,
	}
	f.mfa = wallet{"otp": elevated(func(c *token.Claims) { c.Scopes = nil; c.ID = "mfa-1" })}
	engine, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	c := gate.Config{
		Policy:      engine.Snapshot,
		Session:     gate.SessionConfig{Verify: f.sessions.verify, Header: "Authorization", Cookie: "DYNAMIC_JWT_TOKEN"},
		Elevated:    gate.TokenConfig{Verify: f.elevated.verify, Header: "x-dyn-elevated-access-token"},
		MFA:         gate.MFAConfig{Verify: f.mfa.verify, Header: "x-mfa-auth-token", EnrolledClaim: "mfa_enrolled"},
		Environment: gate.EnvironmentConfig{Param: "environmentId", Header: "x-environment"},
		Client:      gate.ClientConfig{APIVersionHeader: "x-dyn-api-version", SDKVersionHeader: "x-dyn-version"},
		Device:      gate.DeviceConfig{RegisteredScope: "user:basic", UnregisteredScope: "device:register", AdditionalAuthScope: "requiresAdditionalAuth"},
		Ledger:      f.store,
		Leeway:      10 * time.Second,
		Record: func(r *decisionlog.Record) error {
			f.records = append(f.records, *r)
			return f.logErr
		},
		Now: func() time.Time { return now },
	}
	if change != nil {
		change(&c)
	}
	if f.gate, err = gate.New(c); err != nil {
		t.Fatal(err)
	}
	return f
}

// withEnvironments replaces the shipped policy's environments.
func withEnvironments(t *testing.T, yaml string) func(*gate.Config) {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range []string{"requirement.rego", "clients.rego", "environment.rego", "proof.rego", "redirect.rego", "data.yaml"} {
		text, err := rego.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	before, rest, _ := strings.Cut(string(files["data.yaml"].Data), "environments:\n")
	_, after, _ := strings.Cut(rest, "# What each operation needs")
	files["data.yaml"].Data = []byte(before + "environments:\n" + yaml + "\n#" + after)
	engine, err := policy.New(context.Background(), policy.Config{FS: files, EvalTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *gate.Config) { c.Policy = engine.Snapshot }
}

func request(method, path string, headers ...string) *gate.Request {
	r := &gate.Request{Method: method, Path: path, Host: "wallet.example", Header: http.Header{}, ReadBody: body("")}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func (f *fixture) decide(r *gate.Request) *gate.Verdict {
	v := new(gate.Verdict)
	f.gate.Decide(context.Background(), r, v)
	return v
}

func body(text string) func(int64) ([]byte, error) {
	return func(int64) ([]byte, error) { return []byte(text), nil }
}

const (
	auth = "Authorization"
	eat  = "X-Dyn-Elevated-Access-Token"
)

func TestDecide(t *testing.T) {
	link := mount + "/verify/link"
	for _, c := range []struct {
		name string
		r    *gate.Request
		want reason.Reason
	}{
		{"a path that no route matches", request("GET", "/admin"), reason.RouteUnmatched},
		{"a path in another case", request("POST", strings.ToUpper(export)), reason.AmbiguousRequest},
		{"a trailing slash", request("POST", export+"/"), reason.AmbiguousRequest},
		{"the wrong method", request("PUT", export), reason.MethodNotAllowed},
		{"a websocket where none is allowed", func() *gate.Request { r := request("GET", mount+"/users"); r.WebSocket = true; return r }(), reason.UpgradeNotAllowed},

		{"an open route without a session", request("GET", mount+"/settings"), reason.None},
		{"an open route with a stale session", request("POST", mount+"/wallets/signin", auth, "Bearer forged"), reason.None},
		{"a read without a session", request("GET", mount+"/users"), reason.SessionRequired},
		{"a read with a session", request("GET", mount+"/users", auth, "Bearer alice"), reason.None},
		{"the scheme in lower case", request("GET", mount+"/users", auth, "bearer alice"), reason.None},
		{"another scheme", request("GET", mount+"/users", auth, "Basic alice"), reason.SessionRequired},
		{"a forged session", request("GET", mount+"/users", auth, "Bearer forged"), reason.SessionInvalid},
		{"a session whose keys are not there", request("GET", mount+"/users", auth, "Bearer unready"), reason.VerificationUnavailable},
		{"a session in the cookie", request("GET", mount+"/users", "Cookie", "a=b; DYNAMIC_JWT_TOKEN=alice"), reason.None},
		{"the same session in both", request("GET", mount+"/users", auth, "Bearer alice", "Cookie", "DYNAMIC_JWT_TOKEN=alice"), reason.None},
		{"different sessions in both", request("GET", mount+"/users", auth, "Bearer alice", "Cookie", "DYNAMIC_JWT_TOKEN=forged"), reason.InvalidRequest},
		{"a repeated cookie", request("GET", mount+"/users", "Cookie", "DYNAMIC_JWT_TOKEN=alice; DYNAMIC_JWT_TOKEN=alice"), reason.InvalidRequest},
		{"a repeated session header", request("GET", mount+"/users", auth, "Bearer alice", auth, "Bearer alice"), reason.InvalidRequest},

		{"another environment's path", request("GET", "/api/v0/sdk/other/users", auth, "Bearer alice"), reason.EnvironmentMismatch},
		{"another environment's sign-in with a session", request("POST", "/api/v0/sdk/other/wallets/signin", auth, "Bearer alice"), reason.EnvironmentMismatch},
		{"another environment in a header", request("GET", mount+"/users", auth, "Bearer alice", "X-Environment", "other"), reason.EnvironmentMismatch},
		{"a session that names no environment", request("GET", mount+"/users", auth, "Bearer nowhere"), reason.EnvironmentMismatch},

		{"a declared version below the floor", request("GET", mount+"/users", auth, "Bearer alice", "X-Dyn-Api-Version", "2026_01_01"), reason.APIVersionBelowFloor},
		{"the floor with dashes", request("GET", mount+"/users", auth, "Bearer alice", "X-Dyn-Api-Version", "2026-04-01"), reason.None},
		{"a build, which declares nothing", request("GET", mount+"/users", auth, "Bearer alice", "X-Dyn-Api-Version", "API/0.0.1125"), reason.None},
		{"a version that is none", request("GET", mount+"/users", auth, "Bearer alice", "X-Dyn-Api-Version", "newest"), reason.APIVersionInvalid},
		{"the floor speaks before the session", request("GET", mount+"/users", "X-Dyn-Api-Version", "2026_01_01"), reason.APIVersionBelowFloor},
		{"a low version does not skip a step-up", request("POST", export, auth, "Bearer alice", "X-Dyn-Api-Version", "API/0.0.1"), reason.ElevatedTokenRequired},

		{"MFA outstanding", request("GET", mount+"/users", auth, "Bearer pending"), reason.AdditionalAuthRequired},
		{"MFA outstanding, on the way to it", request("POST", mount+"/users/mfa/auth/totp", auth, "Bearer pending"), reason.None},
		{"an unregistered device", request("GET", mount+"/users", auth, "Bearer newdevice"), reason.DeviceVerificationRequired},
		{"an unregistered device registers", request("POST", mount+"/deviceRegistration", auth, "Bearer newdevice"), reason.None},
		{"a sign-in that is not finished", request("GET", mount+"/users", auth, "Bearer kyc"), reason.DeviceVerificationRequired},
		{"an unregistered device with an elevated token", request("POST", export, auth, "Bearer newdevice", eat, "good"), reason.DeviceVerificationRequired},

		{"export without an elevated token", request("POST", export, auth, "Bearer alice"), reason.ElevatedTokenRequired},
		{"export with one", request("POST", export, auth, "Bearer alice", eat, "good"), reason.None},
		{"export with an elevated token and no session", request("POST", export, eat, "good"), reason.SessionRequired},
		{"export with a token of another scope", request("POST", export, auth, "Bearer alice", eat, "link"), reason.ElevatedTokenInsufficientScope},
		{"export with another user's token", request("POST", export, auth, "Bearer alice", eat, "bob"), reason.ElevatedTokenInvalid},
		{"export with another environment's token", request("POST", export, auth, "Bearer alice", eat, "foreign"), reason.ElevatedTokenInvalid},
		{"export with a forged token", request("POST", export, auth, "Bearer alice", eat, "nonsense"), reason.ElevatedTokenInvalid},
		{"export with an expired token", request("POST", export, auth, "Bearer alice", eat, "expired"), reason.ElevatedTokenExpired},
		{"another user's expired token is only invalid", request("POST", export, auth, "Bearer alice", eat, "expbob"), reason.ElevatedTokenInvalid},
		{"export with a token older than max_age", request("POST", export, auth, "Bearer alice", eat, "old"), reason.ElevatedTokenExpired},
		{"export with a token whose keys are not there", request("POST", export, auth, "Bearer alice", eat, "unready"), reason.VerificationUnavailable},
		{"two elevated tokens", request("POST", export, auth, "Bearer alice", eat, "good", eat, "good"), reason.InvalidRequest},
		{"two elevated tokens in one header", request("POST", export, auth, "Bearer alice", eat, "good,good"), reason.InvalidRequest},
		{"an elevated token that is too long", request("POST", export, auth, "Bearer alice", eat, strings.Repeat("a", 8<<10+1)), reason.InvalidRequest},
		{"a step-up in early data", request("POST", export, auth, "Bearer alice", eat, "good", "Early-Data", "1"), reason.TooEarly},
		{"a link with its token", request("POST", link, auth, "Bearer alice", eat, "link"), reason.None},

		{"HEAD of a GET that spends", request("HEAD", mount+"/users/mfa/register/totp", auth, "Bearer alice", eat, "link"), reason.MethodNotAllowed},
		{"HEAD of a read", request("HEAD", mount+"/users", auth, "Bearer alice"), reason.None},
		{"OPTIONS that is no preflight", request("OPTIONS", export), reason.MethodNotAllowed},
		{"a preflight", request("OPTIONS", export, "Origin", "https://app.example", "Access-Control-Request-Method", "POST"), reason.None},
		{"a preflight of nothing", request("OPTIONS", "/nothing", "Origin", "https://app.example", "Access-Control-Request-Method", "POST"), reason.RouteUnmatched},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			v := f.decide(c.r)
			if v.Reason != c.want {
				t.Errorf("reason %q, want %q", v.Reason, c.want)
			}
			if v.Allow != (c.want == reason.None) {
				t.Errorf("allow %v with reason %q", v.Allow, v.Reason)
			}
			if len(f.records) != 1 || f.records[0].Reason != string(c.want) || f.records[0].DecisionID != v.DecisionID {
				t.Errorf("records %+v, want one with the verdict's reason and id", f.records)
			}
			if c.want != reason.None && (v.HoldsReservation() || len(f.store.calls) > 0) {
				t.Errorf("a refused request touched the ledger: %v", f.store.calls)
			}
		})
	}
}

// A body that its header lets a backend read as something else is not judged: as a form, in another charset, decompressed.
func TestBodiesWhoseHeaderSaysOtherThanJSON(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		want   reason.Reason
	}{
		{"JSON", []string{"Content-Type", "application/json"}, reason.None},
		{"a JSON type", []string{"Content-Type", "application/vnd.wallet+json"}, reason.None},
		{"JSON in UTF-8, not encoded", []string{"Content-Type", `Application/JSON; charset="UTF-8"`, "Content-Encoding", "identity"}, reason.None},
		{"nothing", nil, reason.BodyUnreadable},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, reason.BodyUnreadable},
		{"text", []string{"Content-Type", "text/json"}, reason.BodyUnreadable},
		{"another charset", []string{"Content-Type", "application/json; charset=utf-7"}, reason.BodyUnreadable},
		{"a parameter", []string{"Content-Type", "application/json; boundary=x"}, reason.BodyUnreadable},
		{"two charsets", []string{"Content-Type", "application/json; charset=utf-8; charset=utf-7"}, reason.BodyUnreadable},
		{"compressed", []string{"Content-Type", "application/json", "Content-Encoding", "br"}, reason.BodyUnreadable},
		{"no media type", []string{"Content-Type", "json"}, reason.BodyUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request("POST", mount+"/emailVerifications/verify", append([]string{auth, "Bearer alice"}, c.header...)...)
			r.ReadBody = body(`{"requestedScopes":["&verificationToken=123&"]}`)
			if v := newFixture(t, nil).decide(r); v.Reason != c.want {
				t.Errorf("reason %q, want %q", v.Reason, c.want)
			}
		})
	}
}

// Where a backend could take another session than the one that was proven, there is none.
func TestSessionsThatABackendCouldReadDifferently(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		want   reason.Reason
	}{
		{"the cookie", []string{"Cookie", "SESSION=alice"}, reason.None},
		{"the same in both", []string{"Cookie", "a=b; SESSION=alice", auth, "Bearer alice"}, reason.None},
		{"a space before =", []string{"Cookie", "SESSION =mallory; SESSION=alice"}, reason.InvalidRequest},
		{"a space before = alone", []string{"Cookie", "SESSION =mallory", auth, "Bearer alice"}, reason.InvalidRequest},
		{"another case", []string{"Cookie", "session=mallory; SESSION=alice"}, reason.InvalidRequest},
		{"a tab after Bearer", []string{"Cookie", "SESSION=alice", auth, "Bearer\tmallory"}, reason.InvalidRequest},
		{"no scheme", []string{"Cookie", "SESSION=alice", auth, "mallory"}, reason.InvalidRequest},
		{"another scheme", []string{"Cookie", "SESSION=alice", auth, "Basic bWFsbG9yeQ=="}, reason.InvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, func(c *gate.Config) { c.Session.Header, c.Session.Cookie = "Authorization", "SESSION" })
			if v := f.decide(request("GET", mount+"/users", c.header...)); v.Reason != c.want {
				t.Errorf("reason %q, want %q", v.Reason, c.want)
			}
		})
	}
}

// Only what a browser asks before a request that has a route is a preflight.
func TestPreflightLookAlikes(t *testing.T) {
	origin := []string{"Origin", "https://app.example"}
	for _, c := range []struct {
		name, path, method string
		preflight          bool
	}{
		{"of a route", mount + "/waas/w1/privateKey/export", "POST", true},
		{"of another method", mount + "/waas/w1/privateKey/export", "DELETE", false},
		{"of nonsense", mount + "/waas/w1/privateKey/export", "nonsense", false},
		{"of a twin", mount + "/users/MFA", "GET", false},
		{"of no path", mount + "/nothing", "GET", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newFixture(t, nil).decide(request("OPTIONS", c.path, append(origin, "Access-Control-Request-Method", c.method)...))
			if v.Preflight != c.preflight || v.Allow != c.preflight {
				t.Errorf("preflight %v, allowed %v (%s), want %v", v.Preflight, v.Allow, v.Reason, c.preflight)
			}
		})
	}
}

func TestTheDoubleRoleEndpointIsDecidedByItsBody(t *testing.T) {
	path := mount + "/emailVerifications/verify"
	for _, c := range []struct {
		name, body string
		want       reason.Reason
	}{
		{"linking", `{"verificationToken":"1"}`, reason.ElevatedTokenRequired},
		{"no body", ``, reason.ElevatedTokenRequired},
		{"stepping up", `{"requestedScopes":["wallet:export"]}`, reason.None},
		{"no scopes after all", `{"requestedScopes":[]}`, reason.ElevatedTokenRequired},
		{"cut off", `{"requestedScopes":["wallet:ex`, reason.BodyUnreadable},
		{"repeated member", `{"requestedScopes":["a"],"requestedScopes":[]}`, reason.BodyUnreadable},
		{"member in another case", `{"requestedScopes":["a"],"RequestedScopes":[]}`, reason.BodyUnreadable},
		{"two values", `{"requestedScopes":["a"]}{}`, reason.BodyUnreadable},
		{"a form", `requestedScopes=a`, reason.BodyUnreadable},
		{"not UTF-8", "{\"requestedScopes\":[\"\xff\"]}", reason.BodyUnreadable},
		{"too deep", strings.Repeat("[", 100) + strings.Repeat("]", 100), reason.BodyUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request("POST", path, auth, "Bearer alice")
			r.ReadBody = body(c.body)
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
			if v := newFixture(t, nil).decide(r); v.Reason != c.want {
				t.Errorf("reason %q, want %q", v.Reason, c.want)
			}
		})
	}
	t.Run("a door that shows no bodies", func(t *testing.T) {
		r := request("POST", path, auth, "Bearer alice")
		r.ReadBody = nil
		if v := newFixture(t, nil).decide(r); v.Reason != reason.BodyUnreadable {
			t.Errorf("reason %q", v.Reason)
		}
	})
	t.Run("a body that is too large", func(t *testing.T) {
		r := request("POST", path, auth, "Bearer alice")
		r.ReadBody = func(int64) ([]byte, error) { return nil, gate.ErrBodyTooLarge }
		if v := newFixture(t, nil).decide(r); v.Reason != reason.BodyTooLarge {
			t.Errorf("reason %q", v.Reason)
		}
	})
}

func TestASingleUseTokenPassesOnce(t *testing.T) {
	for _, name := range []string{"good", "multi", "nojti"} { // export demands single use whatever the token says
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			r := request("POST", export, auth, "Bearer alice", eat, name)
			first := f.decide(r)
			if !first.Allow || !first.HoldsReservation() {
				t.Fatalf("first: %+v", first)
			}
			second := f.decide(r)
			if second.Reason != reason.ElevatedTokenConsumed || second.TokenState != gate.TokenReserved {
				t.Errorf("while the first is under way: %q %q", second.Reason, second.TokenState)
			}
			if got := first.Settle(gate.Outcome{Status: 200}); got != gate.TokenConsumed {
				t.Errorf("settled as %q", got)
			}
			third := f.decide(r)
			if third.Reason != reason.ElevatedTokenConsumed || third.TokenState != gate.TokenConsumed {
				t.Errorf("afterwards: %q %q", third.Reason, third.TokenState)
			}
		})
	}
}

func TestAMultiUseTokenOnATimeBoundOperationNeverMeetsTheLedger(t *testing.T) {
	f := newFixture(t, nil)
	for range 3 {
		if v := f.decide(request("POST", mount+"/verify/link", auth, "Bearer alice", eat, "link")); !v.Allow || v.HoldsReservation() {
			t.Fatalf("%+v", v)
		}
	}
	if len(f.store.calls) > 0 {
		t.Errorf("ledger calls %v", f.store.calls)
	}
}

func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name    string
		path    string
		token   *token.Claims
		outcome gate.Outcome
		want    gate.TokenState
		call    string
	}{
		{"the backend answered", export, elevated(nil), gate.Outcome{Status: 200}, gate.TokenConsumed, "commit"},
		{"the backend failed", export, elevated(nil), gate.Outcome{Status: 500}, gate.TokenConsumed, "commit"},
		{"nobody knows", export, elevated(nil), gate.Outcome{}, gate.TokenConsumed, "commit"},
		{"it never left", export, elevated(nil), gate.Outcome{Unsent: true}, gate.TokenUnused, "release"},
		{"202 where the policy does not name it", export, elevated(nil), gate.Outcome{Status: 202}, gate.TokenConsumed, "commit"},
		{"202 where the policy names it", mount + "/businessAccounts/b1/transferOwnership",
			elevated(func(c *token.Claims) { c.Scopes = []string{"business_account:transfer_ownership"} }), gate.Outcome{Status: 202}, gate.TokenUnused, "release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.elevated["it"] = c.token
			v := f.decide(request("POST", c.path, auth, "Bearer alice", eat, "it"))
			if !v.Allow {
				t.Fatalf("refused: %s", v.Reason)
			}
			if got := v.Settle(c.outcome); got != c.want {
				t.Errorf("state %q, want %q", got, c.want)
			}
			v.Settle(gate.Outcome{Unsent: true}) // only the first call counts
			if got := f.store.calls[len(f.store.calls)-1]; got != c.call || len(f.store.calls) != 2 {
				t.Errorf("ledger calls %v, want reserve and %s", f.store.calls, c.call)
			}
			last := f.records[len(f.records)-1]
			if last.Phase != "outcome" || last.Status != c.outcome.Status {
				t.Errorf("last record %+v", last)
			}
		})
	}
}

func TestAReleaseThatFailsLeavesTheTokenSpent(t *testing.T) {
	f := newFixture(t, nil)
	v := f.decide(request("POST", export, auth, "Bearer alice", eat, "good"))
	f.store.fail = ledger.ErrUnavailable
	if got := v.Settle(gate.Outcome{Unsent: true}); got != gate.TokenConsumed {
		t.Errorf("state %q", got)
	}
}

func TestLedgerTrouble(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  reason.Reason
		state gate.TokenState
	}{
		{ledger.ErrReserved, reason.ElevatedTokenConsumed, gate.TokenReserved},
		{ledger.ErrConsumed, reason.ElevatedTokenConsumed, gate.TokenConsumed},
		{ledger.ErrFenced, reason.ElevatedTokenRequired, gate.TokenUnused},
		{ledger.ErrFull, reason.ConsumptionStoreUnavailable, gate.TokenUnused},
		{ledger.ErrUnavailable, reason.ConsumptionStoreUnavailable, gate.TokenUnused},
		{ledger.ErrUnknown, reason.ConsumptionStateUnknown, gate.TokenUnknown},
		{errors.New("something else"), reason.ConsumptionStateUnknown, gate.TokenUnknown},
		{context.DeadlineExceeded, reason.ConsumptionStateUnknown, gate.TokenUnknown},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			f := newFixture(t, nil)
			f.store.fail = c.err
			v := f.decide(request("POST", export, auth, "Bearer alice", eat, "good"))
			if v.Allow || v.Reason != c.want || v.TokenState != c.state || v.HoldsReservation() {
				t.Errorf("%v %q %q", v.Allow, v.Reason, v.TokenState)
			}
		})
	}
}

func TestShadowEvaluatesAndPasses(t *testing.T) {
	shadow := withEnvironments(t, "  default: {minimum_api_version: \"2026_04_01\", step_up: {}, mfa_actions: []}\n  \""+env+"\": {mode: shadow}\n")
	f := newFixture(t, shadow)
	for _, c := range []struct {
		name  string
		r     *gate.Request
		allow bool
		want  reason.Reason
	}{
		{"export without a token", request("POST", export, auth, "Bearer alice"), true, reason.ElevatedTokenRequired},
		{"no session", request("GET", mount+"/users"), true, reason.SessionRequired},
		{"no route, in a shadowed session", request("GET", "/admin", auth, "Bearer alice"), true, reason.RouteUnmatched},
		{"no route and no session: the default enforces", request("GET", "/admin"), false, reason.RouteUnmatched},
		{"an ambiguous path", request("POST", export+"/", auth, "Bearer alice"), false, reason.AmbiguousRequest},
		{"an enforced environment's session on a shadowed path", request("GET", mount+"/users", auth, "Bearer elsewhere"), false, reason.EnvironmentMismatch},
		{"a shadowed environment that only a header names", request("GET", "/admin", "X-Environment", env), false, reason.RouteUnmatched},
		{"export with a token", request("POST", export, auth, "Bearer alice", eat, "good"), true, reason.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := f.decide(c.r)
			if v.Allow != c.allow || v.Reason != c.want || v.Shadow != (c.allow && c.want != reason.None) {
				t.Errorf("allow %v reason %q shadow %v", v.Allow, v.Reason, v.Shadow)
			}
		})
	}
	if len(f.store.calls) > 0 {
		t.Errorf("shadow spent: %v", f.store.calls)
	}
}

func TestBelowTheFloorActionBasedMFA(t *testing.T) {
	old := withEnvironments(t, "  default: {minimum_api_version: \"2026_01_01\", step_up: {}, mfa_actions: [wallet.waas.export]}\n")
	mfa := "X-Mfa-Auth-Token"
	for _, c := range []struct {
		name   string
		change func(*gate.Config)
		r      []*gate.Request
		want   reason.Reason
	}{
		{"without an MFA token", nil, []*gate.Request{request("POST", export, auth, "Bearer alice")}, reason.MFATokenRequired},
		{"with one", nil, []*gate.Request{request("POST", export, auth, "Bearer alice", mfa, "otp")}, reason.None},
		{"with one twice", nil, []*gate.Request{request("POST", export, auth, "Bearer alice", mfa, "otp"), request("POST", export, auth, "Bearer alice", mfa, "otp")}, reason.MFATokenConsumed},
		{"with a forged one", nil, []*gate.Request{request("POST", export, auth, "Bearer alice", mfa, "forged")}, reason.MFATokenInvalid},
		{"with nobody to verify it", func(c *gate.Config) { c.MFA.Verify = nil }, []*gate.Request{request("POST", export, auth, "Bearer alice", mfa, "otp")}, reason.MFATokenInvalid},
		{"an action that is not configured", nil, []*gate.Request{request("POST", mount+"/waas/w1/signMessage", auth, "Bearer alice")}, reason.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, func(gc *gate.Config) {
				old(gc)
				if c.change != nil {
					c.change(gc)
				}
			})
			var v *gate.Verdict
			for _, r := range c.r {
				v = f.decide(r)
			}
			if v.Reason != c.want {
				t.Errorf("reason %q, want %q", v.Reason, c.want)
			}
		})
	}
	t.Run("a user without MFA needs none", func(t *testing.T) {
		f := newFixture(t, old)
		s := session("user:basic")
		s.Members["mfa_enrolled"] = false
		f.sessions["bare"] = s
		if v := f.decide(request("POST", export, auth, "Bearer bare")); !v.Allow {
			t.Errorf("reason %q", v.Reason)
		}
	})
}

func TestABlockingLogThatFailsSpendsNothing(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { c.RecordIntent = true })
	f.logErr = errors.New("disk full")
	v := f.decide(request("POST", export, auth, "Bearer alice", eat, "good"))
	if v.Allow || v.Reason != reason.DecisionLogUnavailable || len(f.store.calls) > 0 {
		t.Errorf("allow %v reason %q ledger %v", v.Allow, v.Reason, f.store.calls)
	}
	if v := f.decide(request("GET", mount+"/users", auth, "Bearer alice")); v.Allow || v.Reason != reason.DecisionLogUnavailable {
		t.Errorf("a read: allow %v reason %q", v.Allow, v.Reason)
	}
}

func TestABlockingLogHasTheIntentBeforeTheReservation(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { c.RecordIntent = true })
	f.decide(request("POST", export, auth, "Bearer alice", eat, "good"))
	if len(f.records) != 2 || f.records[0].Phase != "intent" || f.records[0].TokenState != "" || f.records[1].TokenState != "reserved" {
		t.Errorf("records %+v", f.records)
	}
}

func TestARehearsalDoesNotSpend(t *testing.T) {
	f := newFixture(t, nil)
	r := request("POST", export, auth, "Bearer alice", eat, "good")
	r.Shadow = true
	if v := f.decide(r); !v.Allow || v.HoldsReservation() || len(f.store.calls) > 0 {
		t.Errorf("allow %v, ledger %v", v.Allow, f.store.calls)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	if (gate.Verdict{}).Allow {
		t.Error("a zero verdict allows")
	}
	for name, g := range map[string]*gate.Gate{"nil gate": nil, "zero gate": {}} {
		var v gate.Verdict
		g.Decide(context.Background(), request("GET", mount+"/settings"), &v)
		if v.Allow || v.Reason == reason.None {
			t.Errorf("%s allows: %+v", name, v)
		}
	}
	f := newFixture(t, func(c *gate.Config) { c.Policy = func() *policy.Snapshot { return nil } })
	if v := f.decide(request("GET", mount+"/settings")); v.Allow || v.Reason != reason.PolicyError {
		t.Errorf("no policy: %+v", v)
	}
	if _, err := gate.New(gate.Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	if got := (&gate.Verdict{}).Settle(gate.Outcome{}); got != gate.TokenAbsent {
		t.Errorf("settling nothing: %q", got)
	}
}

func TestAFixedEnvironmentMustAgree(t *testing.T) {
	fixed := func(c *gate.Config) { c.Environment.Fixed = env }
	f := newFixture(t, fixed)
	for name, want := range map[string]reason.Reason{"alice": reason.None, "nowhere": reason.None, "elsewhere": reason.EnvironmentMismatch} {
		if v := f.decide(request("GET", mount+"/users", auth, "Bearer "+name)); v.Reason != want {
			t.Errorf("%s: reason %q, want %q", name, v.Reason, want)
		}
	}
	if v := f.decide(request("GET", "/api/v0/sdk/other/settings")); v.Reason != reason.EnvironmentMismatch {
		t.Errorf("another environment's open route: %q", v.Reason)
	}
}

func TestFacts(t *testing.T) {
	f := newFixture(t, nil)
	v := f.decide(request("POST", export, auth, "Bearer alice", eat, "good", "X-Dyn-Version", "WalletKit/4.76.0"))
	if v.Subject != "alice" || v.Environment != env || len(v.Scopes) != 1 || v.SDK != "WalletKit" || !v.SessionExpires.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v", v)
	}
}

func TestAConcurrentTokenPassesOnce(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { c.Record = nil })
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 64 {
		wg.Go(func() {
			if v := f.decide(request("POST", export, auth, "Bearer alice", eat, "good")); v.Allow {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if passed != 1 {
		t.Errorf("%d of 64 passed", passed)
	}
}
