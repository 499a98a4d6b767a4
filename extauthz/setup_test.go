package extauthz_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/extauthz"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// The policy of these tests: what a route needs stands in its operation.
var files = fstest.MapFS{
	"requirement.rego": {Data: []byte(`package stepward

requirement := object.union({"operation": "read", "session": true, "device": "any", "advise_sdk": {"WalletKit": "4.76.0"}}, object.get(data.stepward.needs, input.route, {}))
`)},
	"data.yaml": {Data: []byte(`
mount: ""
environments: {default: {minimum_api_version: "2026_04_01"}}
operations: {read: {}, spend: {}}
needs:
  "POST /spend": {operation: spend, scopes: ["wallet:export"], token: single_use}
routes:
  "GET /read": {operation: read}
  "POST /judged": {operation: read, read_body: 64}
  "GET /files/{name}": {operation: read}
  "POST /spend": {operation: spend}
  "GET /socket": {operation: read, websocket: true}
`)},
}

var engine = sync.OnceValues(func() (*policy.Engine, error) {
	return policy.New(context.Background(), policy.Config{FS: files, EvalTimeout: time.Minute}) // for machines that are busy
})

// book is a ledger that counts what happens to it, and can be out of order.
type book struct {
	mu                 sync.Mutex
	spent              map[ledger.Key]bool
	reserves, releases int
	broken             bool
}

func (b *book) Reserve(_ context.Context, c ledger.Claim) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserves++
	switch {
	case b.broken:
		return ledger.ErrUnavailable
	case b.spent[c.Key]:
		return ledger.ErrConsumed
	}
	b.spent[c.Key] = true
	return nil
}

func (b *book) Commit(context.Context, ledger.Key, ledger.Owner) error { return nil }

func (b *book) Release(context.Context, ledger.Key, ledger.Owner) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.releases++
	return nil
}
func (b *book) Stats(context.Context) (ledger.Stats, error) { return ledger.Stats{}, nil }
func (b *book) Close() error                                { return nil }

func (b *book) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reserves
}

// verify believes tokens named after their purpose: "elevated-1" is an elevated token of Alice's with the id 1.
func verify(purpose string) gate.VerifyFunc {
	return func(_ context.Context, raw string) (*token.Claims, error) {
		if raw == "panic" {
			panic("a bug")
		}
		kind, id, _ := strings.Cut(raw, "-")
		if kind != purpose || strings.ContainsAny(id, ", ") {
			return nil, token.ErrInvalid
		}
		c := &token.Claims{
			Issuer: "iss", Subject: "alice", Environment: "env", ID: id, IssuedAt: time.Now(), Expires: time.Now().Add(time.Minute),
			Members: map[string]any{"sub": "alice"}, Scopes: []string{"user:basic"},
		}
		if purpose == "elevated" {
			c.Scopes, c.SingleUse = []string{"wallet:export"}, true
		}
		return c, nil
	}
}

type setup struct {
	t      testing.TB
	book   *book
	config extauthz.Config
	log    *lines
}

func newSetup(t testing.TB) *setup {
	t.Helper()
	s := &setup{t: t, book: &book{spent: map[ledger.Key]bool{}}, log: new(lines)}
	e, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(gate.Config{
		Policy:   e.Snapshot,
		Session:  gate.SessionConfig{Verify: verify("session"), Header: "Authorization", Cookie: "SESSION"},
		Elevated: gate.TokenConfig{Verify: verify("elevated"), Header: "x-elevated"},
		MFA:      gate.MFAConfig{Header: "x-mfa"},
		Client:   gate.ClientConfig{APIVersionHeader: "x-api-version", SDKVersionHeader: "x-sdk-version"},
		Device:   gate.DeviceConfig{RegisteredScope: "user:basic", UnregisteredScope: "device:register"},
		Ledger:   s.book,
		Record:   func(*decisionlog.Record) error { return nil },
		Hash:     func(_, v string) string { return "hash" },
		Observe:  func(*gate.Verdict, time.Duration) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	words := map[challenge.Profile]*challenge.Writer{}
	for _, profile := range []challenge.Profile{challenge.ProfileSDK, challenge.ProfileRFC9470} {
		cc := challenge.Config{Profile: profile, TypeBase: "urn:x:", Domain: "d", TokenHeader: "x-elevated"}
		if words[profile], err = challenge.New(cc); err != nil {
			t.Fatal(err)
		}
	}
	identity := door.Identity{Subject: "Stepward-Subject", Scopes: "Stepward-Scopes", DecisionID: "Stepward-Decision-Id"}
	rules, err := framing.New(framing.Config{
		Tokens: []string{"Authorization", "x-elevated", "x-mfa"}, Sensitive: []string{"x-api-version"}, Identity: identity.Names(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.config = extauthz.Config{
		Gate: g, Rules: rules, Challenges: words, Identity: identity, Log: s.log.logger(),
		Credentials: door.Credentials{
			SessionHeader: "Authorization", SessionCookie: "SESSION", ElevatedHeader: "x-elevated", MFAHeader: "x-mfa", ForwardSession: true,
		},
	}
	return s
}

func TestADoorNeedsItsParts(t *testing.T) {
	if _, err := extauthz.NewGRPC(extauthz.Config{}, extauthz.DedupConfig{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	if _, err := extauthz.NewHTTP(extauthz.Config{}, nil); err == nil {
		t.Error("an empty configuration is accepted over HTTP")
	}
}
