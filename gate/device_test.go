package gate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/internal/standing"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/rego"
	"github.com/stepward/stepward/token"
)

// openTo says which operations of the shipped routes a sign-in reaches that is not finished, and why each is open.
var openTo = map[string]map[string]string{
	"nobody": {
		"public":           "settings, JWKS and what else the generated client calls without a session",
		"session.begin":    "signing in: there is no session yet",
		"session.verify":   "signing in, by a route whose body decides",
		"session.callback": "a provider's page sends it in the midst of a sign-in",
		"session.keep":     "refresh, sign-out and whether a session is good: the backend judges sessions that have expired",
	},
	"an unfinished sign-in": {
		"device.register": "the way out of device:register",
		"mfa.read":        "whoever owes a second factor must see which there are",
		"stepup.check":    "tells which methods there are, and passes nothing",
		"stepup.verify":   "the way out of requiresAdditionalAuth",
		"stepup.request":  "the same, by a route whose body decides",
	},
}

func TestWhichRoutesASignInReaches(t *testing.T) {
	text, err := rego.FS.ReadFile("data.yaml")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`(?m)^  "?((?:[A-Z]+ )?/[^"]+)"?: \{operation: ([a-z_.]+)`).FindAllStringSubmatch(string(text), -1)
	if len(routes) < 220 {
		t.Fatalf("found only %d routes", len(routes))
	}
	f := newFixture(t, func(c *gate.Config) { c.Record = nil })
	for name, s := range map[string]*token.Claims{
		"bare": session(), "near": session("user:basic", "device:registerX"), "both": session("user:basic", "device:register"),
		"half": session("user:basic", "requiresAdditionalAuth"), "User": session("User:Basic"),
	} {
		f.sessions[name] = s
	}
	for _, who := range []struct {
		session string // "" for none
		opens   []string
		refused reason.Reason
	}{
		{"", []string{"nobody"}, reason.SessionRequired},
		{"forged", []string{"nobody"}, reason.SessionInvalid},
		{"newdevice", []string{"nobody", "an unfinished sign-in"}, reason.DeviceVerificationRequired},
		{"both", []string{"nobody", "an unfinished sign-in"}, reason.DeviceVerificationRequired},
		{"bare", []string{"nobody", "an unfinished sign-in"}, reason.DeviceVerificationRequired},
		{"User", []string{"nobody", "an unfinished sign-in"}, reason.DeviceVerificationRequired},
		{"pending", []string{"nobody", "an unfinished sign-in"}, reason.AdditionalAuthRequired},
		{"half", []string{"nobody", "an unfinished sign-in"}, reason.AdditionalAuthRequired},
		{"alice", nil, ""},
		{"near", nil, ""},
	} {
		for _, route := range routes {
			for _, asks := range []bool{false, true} {
				open := who.opens == nil
				for _, group := range who.opens {
					_, listed := openTo[group][route[2]]
					// A call that verifies and links nothing is a step-up.
					open = open || listed || asks && route[2] == "credential.verify" && group == "an unfinished sign-in"
				}
				got := f.decide(walk(route[1], who.session, asks)).Reason
				want := who.refused
				switch {
				case route[2] == "admin":
					want = reason.Forbidden
				case open && got == reason.ElevatedTokenRequired && who.opens == nil: // past all that devices are asked for
					want = got
				case open:
					want = reason.None
				}
				if got != want {
					t.Errorf("%q on %s (%s), asking for scopes %v: %q, want %q", who.session, route[1], route[2], asks, got, want)
				}
			}
		}
	}
}

// walk is a request for a route of the data file.
func walk(pattern, who string, asks bool) *gate.Request {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "GET", pattern
	}
	path = strings.ReplaceAll(path, "{environmentId}", env)
	path = "/api/v0" + regexp.MustCompile(`\{[^}]+\}`).ReplaceAllString(path, "x1")
	r := request(method, path)
	if who != "" {
		r.Header.Set(auth, "Bearer "+who)
	}
	if asks {
		r.Header.Set("Content-Type", "application/json")
		r.ReadBody = body(`{"requestedScopes":["wallet:sign"]}`)
	}
	return r
}

func TestTheTokenOfAnEmailedLink(t *testing.T) {
	const shipped, other = "X-Dynamic-Device-Registration-Token", "X-Dynamic-Device-Token-Registration"
	for _, c := range []struct {
		name    string
		headers []string
		want    reason.Reason
	}{
		{"as the SDKs send it", []string{shipped, "t"}, reason.None},
		{"as Dynamic's documents spell it", []string{other, "t"}, reason.None},
		{"under both names", []string{shipped, "t", other, "t"}, reason.None},
		{"two tokens under the two names", []string{shipped, "t", other, "u"}, reason.InvalidRequest},
		{"an empty one and a token", []string{shipped, "", other, "t"}, reason.None},
		{"twice", []string{shipped, "t", shipped, "t"}, reason.InvalidRequest},
		{"twice under the other name", []string{other, "t", other, "t"}, reason.InvalidRequest},
		{"a list", []string{shipped, "t,u"}, reason.InvalidRequest},
		{"a list under the other name", []string{other, "t, u"}, reason.InvalidRequest},
		{"too long", []string{shipped, strings.Repeat("t", 8<<10+1)}, reason.InvalidRequest},
		{"too long under the other name", []string{other, strings.Repeat("t", 8<<10+1)}, reason.InvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			if v := f.decide(request("POST", mount+"/deviceRegistration", append([]string{auth, "Bearer newdevice"}, c.headers...)...)); v.Reason != c.want {
				t.Errorf("%q, want %q", v.Reason, c.want)
			}
		})
	}
}

// proof is one that WebCrypto made.
type proof struct{ Key, Nonce, Signature string }

func proofs(t testing.TB) []proof {
	t.Helper()
	text, err := os.ReadFile("../internal/deviceproof/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []proof
	if err := json.Unmarshal(text, &list); err != nil || len(list) < 4 {
		t.Fatalf("%d vectors, %v", len(list), err)
	}
	return list
}

func (p proof) headers() []string {
	return []string{"X-Dynamic-Device-Nonce", p.Nonce, "X-Dynamic-Device-Publickey", p.Key, "X-Dynamic-Device-Signed-Nonce", p.Signature}
}

// What the shipped policy knows, with proofs asked for.
const (
	proving  = "  default: {minimum_api_version: \"2026_04_01\", step_up: {}, mfa_actions: [], device_proof: [device.register, device.revoke, wallet.export, credential.link]}\n"
	byCookie = "  default: {minimum_api_version: \"2026_04_01\", step_up: {}, mfa_actions: [], device_proof: [device.revoke], device_cookie: true}\n"
	provenMF = "  default: {minimum_api_version: \"2026_01_01\", step_up: {}, mfa_actions: [wallet.waas.export], device_proof: [wallet.export]}\n"
)

var revoke = mount + "/deviceRegistrations/d1"

func TestAProofOfTheDevicesKey(t *testing.T) {
	ask := withEnvironments(t, proving)
	list := proofs(t)
	p, q := list[1], list[2]
	with := func(change func(*proof)) []string { c := p; change(&c); return c.headers() }
	claim := func(v any) func(*token.Claims) { return func(c *token.Claims) { c.Members["device_key"] = v } }
	for _, c := range []struct {
		name    string
		headers []string
		claim   func(*token.Claims) // of the session, in device_key
		want    reason.Reason
	}{
		{"none", nil, nil, reason.DeviceProofRequired},
		{"empty headers", proof{}.headers(), nil, reason.DeviceProofRequired},
		{"a good one", p.headers(), nil, reason.None},
		{"without a nonce", with(func(p *proof) { p.Nonce = "" }), nil, reason.DeviceProofInvalid},
		{"without a key", with(func(p *proof) { p.Key = "" }), nil, reason.DeviceProofInvalid},
		{"without a signature", with(func(p *proof) { p.Signature = "" }), nil, reason.DeviceProofInvalid},
		{"of another nonce", with(func(p *proof) { p.Nonce = q.Nonce }), nil, reason.DeviceProofInvalid},
		{"of another key", with(func(p *proof) { p.Key = q.Key }), nil, reason.DeviceProofInvalid},
		{"two nonces", append(p.headers(), "X-Dynamic-Device-Nonce", q.Nonce), nil, reason.InvalidRequest},
		{"two keys", append(p.headers(), "X-Dynamic-Device-Publickey", p.Key), nil, reason.InvalidRequest},
		{"two signatures", append(p.headers(), "X-Dynamic-Device-Signed-Nonce", p.Signature), nil, reason.InvalidRequest},
		{"of the session's key", p.headers(), claim(p.Key), reason.None},
		{"of the session's key in capitals", p.headers(), claim(strings.ToUpper(p.Key)), reason.None},
		{"of another key than the session's", p.headers(), claim(q.Key), reason.DeviceProofInvalid},
		{"for a session whose key is none", p.headers(), claim("x"), reason.DeviceProofInvalid},
		{"for a session whose key is empty", p.headers(), claim(""), reason.DeviceProofInvalid},
		{"for a session whose key is a list", p.headers(), claim([]any{p.Key}), reason.DeviceProofInvalid},
		{"for a registered session without a key", p.headers(), func(*token.Claims) {}, reason.DeviceProofInvalid},
		{"for a registered session whose key is null", p.headers(), claim(nil), reason.DeviceProofInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, func(g *gate.Config) {
				ask(g)
				if c.claim != nil {
					g.Device.KeyClaim = "device_key"
				}
			})
			s := session("user:basic")
			if c.claim != nil {
				c.claim(s)
			}
			f.sessions["she"] = s
			v := f.decide(request("DELETE", revoke, append([]string{auth, "Bearer she"}, c.headers...)...))
			if v.Reason != c.want || v.Allow != (c.want == reason.None) || v.HoldsReservation() != v.Allow {
				t.Errorf("%q, allow %v, reserved %v; want %q", v.Reason, v.Allow, v.HoldsReservation(), c.want)
			}
			if c.want != reason.None && len(f.store.calls) > 0 {
				t.Errorf("a refused proof met the ledger: %v", f.store.calls)
			}
		})
	}
}

// A device that registers has no session that could name its key.
func TestARegisteringDeviceProvesThatItHasAKey(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { withEnvironments(t, proving)(c); c.Device.KeyClaim = "device_key" })
	register := func(headers ...string) reason.Reason {
		return f.decide(request("POST", mount+"/deviceRegistration", append([]string{auth, "Bearer newdevice"}, headers...)...)).Reason
	}
	if got := register(); got != reason.DeviceProofRequired {
		t.Errorf("without a proof: %q", got)
	}
	if got := register(proofs(t)[0].headers()...); got != reason.None {
		t.Errorf("with one: %q", got)
	}
	f.sessions["newdevice"].(*token.Claims).Members["device_key"] = proofs(t)[2].Key
	if got := register(proofs(t)[1].headers()...); got != reason.DeviceProofInvalid {
		t.Errorf("of another key than the session names: %q", got)
	}
}

func TestNoProofIsAskedForWhereNobodySendsOne(t *testing.T) {
	for name, environments := range map[string]string{"cookie mode": byCookie, "by default": "  default: {minimum_api_version: \"2026_04_01\"}\n"} {
		f := newFixture(t, withEnvironments(t, environments))
		if v := f.decide(request("DELETE", revoke, auth, "Bearer alice", "X-Dynamic-Device-Nonce", "whatever the client sends")); !v.Allow || v.HoldsReservation() {
			t.Errorf("%s: %q, reserved %v", name, v.Reason, v.HoldsReservation())
		}
	}
}

func TestAProofStandsInTheOrderOfRefusal(t *testing.T) {
	f := newFixture(t, withEnvironments(t, proving))
	p := proofs(t)[1]
	for _, c := range []struct {
		name string
		r    *gate.Request
		want reason.Reason
	}{
		{"after the session", request("DELETE", revoke, p.headers()...), reason.SessionRequired},
		{"after the device", request("DELETE", revoke, append(p.headers(), auth, "Bearer newdevice")...), reason.DeviceVerificationRequired},
		{"before the token", request("POST", export, auth, "Bearer alice"), reason.DeviceProofRequired},
		{"and does not excuse it", request("POST", export, append(p.headers(), auth, "Bearer alice")...), reason.ElevatedTokenRequired},
		{"in early data", request("DELETE", revoke, append(p.headers(), auth, "Bearer alice", "Early-Data", "1")...), reason.TooEarly},
	} {
		if v := f.decide(c.r); v.Reason != c.want || len(f.store.calls) > 0 {
			t.Errorf("%s: %q, ledger %v, want %q", c.name, v.Reason, f.store.calls, c.want)
		}
	}
}

func TestANoncePassesOnce(t *testing.T) {
	f := newFixture(t, withEnvironments(t, proving))
	list := proofs(t)
	headers := func(p proof) []string { return append(p.headers(), auth, "Bearer alice") }
	first := f.decide(request("DELETE", revoke, headers(list[1])...))
	if !first.Allow {
		t.Fatal(first.Reason)
	}
	again := func(what string, p proof, want reason.Reason) {
		t.Helper()
		if v := f.decide(request("DELETE", revoke, headers(p)...)); v.Reason != want {
			t.Errorf("%s: %q, want %q", what, v.Reason, want)
		}
	}
	again("in flight", list[1], reason.DeviceProofInvalid)
	if state := first.Settle(gate.Outcome{Status: 200}); state != gate.TokenAbsent {
		t.Errorf("state %q for a request without a token", state)
	}
	again("afterwards", list[1], reason.DeviceProofInvalid)
	upper := list[1]
	upper.Key, upper.Signature = strings.ToUpper(upper.Key), strings.ToUpper(upper.Signature)
	again("in capitals", upper, reason.DeviceProofInvalid)
	again("another", list[2], reason.None)

	// It never left, so it is as good as new.
	f.decide(request("DELETE", revoke, headers(list[3])...)).Settle(gate.Outcome{Unsent: true})
	again("after one that never left", list[3], reason.None)
}

func TestAConcurrentNoncePassesOnce(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { withEnvironments(t, proving)(c); c.Record = nil })
	headers := append(proofs(t)[1].headers(), auth, "Bearer alice")
	var wg sync.WaitGroup
	passed := make(chan *gate.Verdict, 64)
	for range 64 {
		wg.Go(func() {
			v := f.decide(request("DELETE", revoke, headers...))
			if v.Allow {
				passed <- v
			} else if v.Reason != reason.DeviceProofInvalid {
				t.Errorf("a loser is told %q", v.Reason)
			}
		})
	}
	wg.Wait()
	if len(passed) != 1 {
		t.Errorf("%d of 64 passed", len(passed))
	}
}

// faulty fails the operations that the test says.
type faulty struct {
	ledger.Store
	mu   sync.Mutex
	n    int
	fail func(op string, n int) error // n counts reservations from 1
	log  []string
	last ledger.Claim
}

func (s *faulty) step(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == "reserve" {
		s.n++
	}
	s.log = append(s.log, op)
	return s.fail(op, s.n)
}

func (s *faulty) Reserve(ctx context.Context, c ledger.Claim) error {
	s.last = c
	if err := s.step("reserve"); err != nil {
		return err
	}
	return s.Store.Reserve(ctx, c)
}

func (s *faulty) Commit(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	return errors.Join(s.step("commit"), s.Store.Commit(ctx, k, o))
}

func (s *faulty) Release(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	if err := s.step("release"); err != nil {
		return err
	}
	return s.Store.Release(ctx, k, o)
}

// Every combination of a nonce and a token, of which one or the other is not to be had.
func TestANonceAndAToken(t *testing.T) {
	both := "reserve reserve"
	asking := map[string]func(*gate.Config){proving: withEnvironments(t, proving), provenMF: withEnvironments(t, provenMF)}
	for _, c := range []struct {
		name, environments, path string
		headers                  []string
		nonce, token             error // what the ledger says
		outcome                  gate.Outcome
		want                     reason.Reason
		state                    gate.TokenState // of the token, after Settle where it passed
		calls                    string
		free                     string // what could be used again: nonce, token, both or none
	}{
		{"both good", proving, export, []string{eat, "good"}, nil, nil, gate.Outcome{Status: 200}, "", gate.TokenConsumed, both + " commit commit", "none"},
		{"nobody knows", proving, export, []string{eat, "good"}, nil, nil, gate.Outcome{}, "", gate.TokenConsumed, both + " commit commit", "none"},
		{"it never left", proving, export, []string{eat, "good"}, nil, nil, gate.Outcome{Unsent: true}, "", gate.TokenUnused, both + " release release", "both"},
		{"the nonce was used", proving, export, []string{eat, "good"}, ledger.ErrConsumed, nil, gate.Outcome{}, reason.DeviceProofInvalid, gate.TokenUnused, "reserve", "both"},
		{"the nonce is in use", proving, export, []string{eat, "good"}, ledger.ErrReserved, nil, gate.Outcome{}, reason.DeviceProofInvalid, gate.TokenUnused, "reserve", "both"},
		{"a fence before the nonce", proving, export, []string{eat, "good"}, ledger.ErrFenced, nil, gate.Outcome{}, reason.ConsumptionStoreUnavailable, gate.TokenUnused, "reserve", "both"},
		{"no room for the nonce", proving, export, []string{eat, "good"}, ledger.ErrFull, nil, gate.Outcome{}, reason.ConsumptionStoreUnavailable, gate.TokenUnused, "reserve", "both"},
		{"the nonce's fate is unknown", proving, export, []string{eat, "good"}, ledger.ErrUnknown, nil, gate.Outcome{}, reason.ConsumptionStoreUnavailable, gate.TokenUnused, "reserve", "both"},
		{"the token was used", proving, export, []string{eat, "good"}, nil, ledger.ErrConsumed, gate.Outcome{}, reason.ElevatedTokenConsumed, gate.TokenConsumed, both + " release", "both"},
		{"the token is fenced", proving, export, []string{eat, "good"}, nil, ledger.ErrFenced, gate.Outcome{}, reason.ElevatedTokenRequired, gate.TokenUnused, both + " release", "both"},
		{"no room for the token", proving, export, []string{eat, "good"}, nil, ledger.ErrFull, gate.Outcome{}, reason.ConsumptionStoreUnavailable, gate.TokenUnused, both + " release", "both"},
		{"the token's fate is unknown", proving, export, []string{eat, "good"}, nil, ledger.ErrUnknown, gate.Outcome{}, reason.ConsumptionStateUnknown, gate.TokenUnknown, both + " release", "both"},
		{"a bad token", proving, export, []string{eat, "bob"}, nil, nil, gate.Outcome{}, reason.ElevatedTokenInvalid, gate.TokenAbsent, "", "both"},
		{"a multi-use token", proving, mount + "/verify/link", []string{eat, "link"}, nil, nil, gate.Outcome{Status: 200}, "", gate.TokenAbsent, "reserve commit", "token"},
		{"a multi-use token, and the nonce was used", proving, mount + "/verify/link", []string{eat, "link"}, ledger.ErrConsumed, nil, gate.Outcome{}, reason.DeviceProofInvalid, gate.TokenUnused, "reserve", "both"},
		{"an MFA token", provenMF, export, []string{"X-Mfa-Auth-Token", "otp"}, nil, nil, gate.Outcome{Status: 200}, "", gate.TokenConsumed, both + " commit commit", "none"},
		{"an MFA token that was used", provenMF, export, []string{"X-Mfa-Auth-Token", "otp"}, nil, ledger.ErrConsumed, gate.Outcome{}, reason.MFATokenConsumed, gate.TokenConsumed, both + " release", "both"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &faulty{fail: func(op string, n int) error {
				switch {
				case op == "reserve" && n == 1:
					return c.nonce
				case op == "reserve" && n == 2:
					return c.token
				}
				return nil
			}}
			f := newFixture(t, func(g *gate.Config) {
				asking[c.environments](g)
				store.Store, g.Ledger = g.Ledger, store
			})
			p := proofs(t)[1]
			r := request("POST", c.path, append(append(p.headers(), auth, "Bearer alice"), c.headers...)...)
			v := f.decide(r)
			want := c.want
			if want == "" {
				want = reason.None
			}
			if v.Reason != want {
				t.Fatalf("%q, want %q", v.Reason, want)
			}
			if v.Allow {
				v.Settle(c.outcome)
				v.Settle(gate.Outcome{Unsent: true}) // only the first call counts
			}
			if got := strings.Join(store.log, " "); v.TokenState != c.state || got != c.calls {
				t.Errorf("state %q, ledger %q; want %q, %q", v.TokenState, got, c.state, c.calls)
			}
			store.fail = func(string, int) error { return nil }
			free := "none"
			switch len(f.store.state) {
			case 0:
				free = "both"
			case 1:
				free = "token"
			}
			if free != c.free {
				t.Errorf("free afterwards: %s, want %s (%v)", free, c.free, f.store.state)
			}
		})
	}
}

// The policy's release_on speaks of the operation. The backend has seen the nonce, and spent it.
func TestAnAnswerGivesTheTokenBackAndKeepsTheNonce(t *testing.T) {
	environments := strings.Replace(proving, "device.revoke", "business_account.transfer_ownership", 1)
	f := newFixture(t, withEnvironments(t, environments))
	f.elevated["own"] = elevated(func(c *token.Claims) { c.Scopes = []string{"business_account:transfer_ownership"} })
	p := proofs(t)[1]
	r := request("POST", mount+"/businessAccounts/b1/transferOwnership", append(p.headers(), auth, "Bearer alice", eat, "own")...)
	if state := f.decide(r).Settle(gate.Outcome{Status: 202}); state != gate.TokenUnused {
		t.Errorf("token %q", state)
	}
	if v := f.decide(r); v.Reason != reason.DeviceProofInvalid {
		t.Errorf("the same nonce: %q", v.Reason)
	}
}

func TestHowLongANonceIsRemembered(t *testing.T) {
	store := &faulty{fail: func(string, int) error { return nil }}
	f := newFixture(t, func(c *gate.Config) {
		withEnvironments(t, proving)(c)
		c.Device.NonceLifetime = 2 * time.Hour
		store.Store, c.Ledger = c.Ledger, store
	})
	f.decide(request("DELETE", revoke, append(proofs(t)[1].headers(), auth, "Bearer alice")...))
	if got, want := store.last.Until, now.Add(2*time.Hour+10*time.Second+ledger.Margin); !got.Equal(want) {
		t.Errorf("until %v, want %v", got, want)
	}
	if got, want := store.last.IssuedAt, now.Add(-2*time.Hour); !got.Equal(want) {
		t.Errorf("as if issued at %v, want %v: before that it would be forgotten", got, want)
	}
}

// A memory that is younger than a nonce can be does not know whether it was spent.
func TestAYoungLedgerVouchesForNoNonce(t *testing.T) {
	var passed atomic.Int64
	clock := func() time.Time { return now.Add(time.Duration(passed.Load())) }
	young, err := ledger.NewMemory(ledger.MemoryConfig{Capacity: 8, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer young.Close()
	f := newFixture(t, func(c *gate.Config) {
		withEnvironments(t, proving)(c)
		c.Ledger, c.Device.NonceLifetime, c.Now = young, time.Hour, clock
	})
	for _, at := range []struct {
		after time.Duration
		want  reason.Reason
	}{
		{0, reason.ConsumptionStoreUnavailable}, {time.Hour - time.Minute, reason.ConsumptionStoreUnavailable}, {time.Hour + time.Minute, reason.None},
	} {
		passed.Store(int64(at.after))
		if v := f.decide(request("DELETE", revoke, append(proofs(t)[1].headers(), auth, "Bearer alice")...)); v.Reason != at.want {
			t.Errorf("after %v: %q, want %q", at.after, v.Reason, at.want)
		}
	}
}

// A crash between the two reservations costs the nonce and leaves the token, which a person made.
func TestACrashBetweenNonceAndToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.db")
	open := func() ledger.Store {
		store, err := ledger.Open(t.Context(), "bolt:"+file, ledger.Options{Capacity: 8, Now: func() time.Time { return now.Add(-48 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	list := proofs(t)
	decide := func(store ledger.Store, p proof) (v *gate.Verdict) {
		f := newFixture(t, func(c *gate.Config) { withEnvironments(t, proving)(c); c.Ledger = store })
		defer func() { _ = recover() }()
		return f.decide(request("POST", export, append(p.headers(), auth, "Bearer alice", eat, "good")...))
	}
	store := open()
	decide(&faulty{Store: store, fail: func(_ string, n int) error {
		if n == 2 {
			panic("crash")
		}
		return nil
	}}, list[1])
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = open()
	defer store.Close()
	if v := decide(store, list[1]); v == nil || v.Reason != reason.DeviceProofInvalid {
		t.Errorf("the nonce after the crash: %+v", v)
	}
	if v := decide(store, list[2]); v == nil || !v.Allow {
		t.Errorf("the token after the crash, with another nonce: %+v", v)
	}
}

func TestARehearsalSpendsNoNonce(t *testing.T) {
	shadow := strings.Replace(proving, "minimum", "mode: shadow, minimum", 1)
	f := newFixture(t, withEnvironments(t, shadow))
	if v := f.decide(request("DELETE", revoke, append(proofs(t)[1].headers(), auth, "Bearer alice")...)); !v.Allow || v.HoldsReservation() {
		t.Errorf("%+v", v)
	}
	if v := f.decide(request("DELETE", revoke, auth, "Bearer alice")); !v.Allow || !v.Shadow || v.Reason != reason.DeviceProofRequired {
		t.Errorf("without a proof: %+v", v)
	}
	f = newFixture(t, withEnvironments(t, proving))
	r := request("DELETE", revoke, append(proofs(t)[1].headers(), auth, "Bearer alice")...)
	r.Shadow = true
	if v := f.decide(r); !v.Allow || v.HoldsReservation() {
		t.Errorf("%+v", v)
	}
}

func TestABlockingLogHasTheIntentOfANonce(t *testing.T) {
	f := newFixture(t, func(c *gate.Config) { withEnvironments(t, proving)(c); c.RecordIntent = true })
	r := request("DELETE", revoke, append(proofs(t)[1].headers(), auth, "Bearer alice")...)
	f.decide(r).Settle(gate.Outcome{Status: 204})
	var phases []string
	for _, record := range f.records {
		phases = append(phases, record.Phase)
	}
	if !slices.Equal(phases, []string{"intent", "decision", "outcome"}) {
		t.Errorf("phases %v", phases)
	}
	f.logErr = errors.New("disk full")
	f.store.calls = nil
	if v := f.decide(request("DELETE", revoke, append(proofs(t)[2].headers(), auth, "Bearer alice")...)); v.Reason != reason.DecisionLogUnavailable || len(f.store.calls) > 0 {
		t.Errorf("%q, ledger %v", v.Reason, f.store.calls)
	}
}

func TestWhetherASessionStands(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      *gate.Request
		answer error
		want   reason.Reason
		asked  string // "" for nobody
	}{
		{"one that stands", request("GET", mount+"/users", auth, "Bearer alice"), nil, reason.None, env + " alice header remembered"},
		{"in the cookie", request("GET", mount+"/users", "Cookie", "DYNAMIC_JWT_TOKEN=alice"), nil, reason.None, env + " alice cookie remembered"},
		{"one that ended", request("GET", mount+"/users", auth, "Bearer alice"), standing.ErrEnded, reason.SessionInvalid, env + " alice header remembered"},
		{"a backend that does not say", request("GET", mount+"/users", auth, "Bearer alice"), errors.New("refused"), reason.VerificationUnavailable, env + " alice header remembered"},
		{"what needs a token asks afresh", request("POST", export, auth, "Bearer alice", eat, "good"), standing.ErrEnded, reason.SessionInvalid, env + " alice header afresh"},
		{"before the token is looked at", request("POST", export, auth, "Bearer alice"), nil, reason.ElevatedTokenRequired, env + " alice header afresh"},
		{"revoking a device asks afresh", request("DELETE", revoke, auth, "Bearer alice"), nil, reason.None, env + " alice header afresh"},
		{"registering one anew asks afresh", request("POST", mount+"/deviceRegistration", auth, "Bearer alice"), nil, reason.None, env + " alice header afresh"},
		{"a step-up", request("POST", mount+"/users/mfa/auth/totp", auth, "Bearer alice"), standing.ErrEnded, reason.SessionInvalid, env + " alice header remembered"},
		{"a sign-in that is not finished asks nobody", request("POST", mount+"/deviceRegistration", auth, "Bearer newdevice"), standing.ErrEnded, reason.None, ""},
		{"nor one that owes its second factor", request("POST", mount+"/users/mfa/auth/totp", auth, "Bearer pending"), standing.ErrEnded, reason.None, ""},
		{"a forged session asks nobody", request("GET", mount+"/users", auth, "Bearer forged"), nil, reason.SessionInvalid, ""},
		{"an unregistered device is refused first", request("GET", mount+"/users", auth, "Bearer newdevice"), standing.ErrEnded, reason.DeviceVerificationRequired, ""},
		{"another environment is refused first", request("GET", "/api/v0/sdk/other/users", auth, "Bearer alice"), standing.ErrEnded, reason.EnvironmentMismatch, ""},
		{"signing in does not ask", request("POST", mount+"/wallets/signin", auth, "Bearer alice"), standing.ErrEnded, reason.None, ""},
		{"signing out does not ask", request("POST", mount+"/revoke", auth, "Bearer alice"), standing.ErrEnded, reason.None, ""},
		{"no session", request("GET", mount+"/users"), nil, reason.SessionRequired, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := ""
			f := newFixture(t, func(g *gate.Config) {
				g.Session.Check = func(_ context.Context, s standing.Session) error {
					asked += fmt.Sprint(s.Environment, " ", s.Token, map[bool]string{true: " cookie", false: " header"}[s.InCookie],
						map[bool]string{true: " afresh", false: " remembered"}[s.Fresh])
					return c.answer
				}
			})
			if v := f.decide(c.r); v.Reason != c.want || asked != c.asked || len(f.store.calls) > 0 && !v.Allow {
				t.Errorf("%q, asked %q, ledger %v; want %q, %q", v.Reason, asked, f.store.calls, c.want, c.asked)
			}
		})
	}
}

func TestWhereASignInLeadsBackTo(t *testing.T) {
	f := newFixture(t, withEnvironments(t, "  default: {minimum_api_version: \"2026_04_01\", redirect_origins: [\"https://app.example\", \"myapp://\"]}\n"))
	initAuth := func(body_ string, headers ...string) *gate.Request {
		r := request("POST", mount+"/providers/google/initAuth", append([]string{"Content-Type", "application/json"}, headers...)...)
		r.ReadBody = body(body_)
		return r
	}
	query := func(raw string) *gate.Request {
		r := request("GET", mount+"/providers/google/authorizeHtml")
		r.RawQuery = raw
		return r
	}
	for _, c := range []struct {
		name string
		r    *gate.Request
		want reason.Reason
	}{
		{"no target", initAuth(`{"state":"s"}`), reason.None},
		{"home", initAuth(`{"state":"s","redirectUrl":"https://app.example/cb"}`, "Origin", "https://app.example"), reason.None},
		{"elsewhere", initAuth(`{"state":"s","redirectUrl":"https://app.example@evil.example/"}`), reason.Forbidden},
		{"asked for by another page", initAuth(`{"state":"s","redirectUrl":"https://app.example/cb"}`, "Origin", "https://evil.example"), reason.Forbidden},
		{"asked for by nobody's page", initAuth(`{"state":"s"}`, "Origin", "null"), reason.Forbidden},
		{"into the app", initAuth(`{"state":"s_client-redirect:myapp://cb"}`), reason.None},
		{"into another app", initAuth(`{"state":"s_client-redirect:evil://cb"}`), reason.Forbidden},
		{"home, by the query", query("redirect_uri=https%3A%2F%2Fapp.example%2Fcb"), reason.None},
		{"elsewhere, by the query", query("a=b&redirect%5Furi=https%3A%2F%2Fevil.example"), reason.Forbidden},
		{"a mailed code, asked for by another page", request("POST", mount+"/emailVerifications/create", "Origin", "https://evil.example"), reason.Forbidden},
		{"a sign-in by another page", request("POST", mount+"/emailVerifications/signin", "Origin", "https://evil.example"), reason.Forbidden},
		{"a device registered by another page", request("POST", mount+"/deviceRegistration", auth, "Bearer newdevice", "Origin", "https://evil.example"), reason.Forbidden},
		{"a wallet in Dynamic's own frame", request("POST", mount+"/waas/w1/signMessage", auth, "Bearer alice", "Origin", "https://app.dynamicauth.com"), reason.None},
		{"Apple's page", request("POST", mount+"/providers/apple/redirect", "Origin", "https://appleid.apple.com"), reason.None},
	} {
		v := f.decide(c.r)
		if v.Reason != c.want {
			t.Errorf("%s: %q, want %q", c.name, v.Reason, c.want)
		}
		if v.Reason == reason.Forbidden && v.Requirement.Deny.Code != "redirect_not_allowed" {
			t.Errorf("%s: policy code %q", c.name, v.Requirement.Deny.Code)
		}
	}
}

func TestAnAnswerKeepsANonceThatCameAlone(t *testing.T) {
	f := newFixture(t, withEnvironments(t, strings.Replace(proving, "device.revoke", "business_account.member.add", 1)))
	f.elevated["add"] = elevated(func(c *token.Claims) { c.Scopes, c.SingleUse = []string{"business_account:member:add"}, false })
	r := request("POST", mount+"/businessAccounts/b1/members", append(proofs(t)[1].headers(), auth, "Bearer alice", eat, "add")...)
	f.decide(r).Settle(gate.Outcome{Status: 202})
	if v := f.decide(r); v.Reason != reason.DeviceProofInvalid {
		t.Errorf("the same nonce: %q", v.Reason)
	}
}

func TestHeadOfWhatSpendsANonce(t *testing.T) {
	f := newFixture(t, withEnvironments(t, strings.Replace(proving, "device.revoke", "user.read", 1)))
	headers := append(proofs(t)[1].headers(), auth, "Bearer alice")
	if v := f.decide(request("HEAD", mount+"/users", headers...)); v.Reason != reason.MethodNotAllowed {
		t.Errorf("HEAD: %q", v.Reason)
	}
	if v := f.decide(request("GET", mount+"/users", headers...)); !v.Allow {
		t.Errorf("GET: %q", v.Reason)
	}
}
