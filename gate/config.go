package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/standing"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/token"
)

// VerifyFunc proves one compact token; token.Verifier.Verify is one. Its errors are those of package token.
type VerifyFunc func(ctx context.Context, raw string) (*token.Claims, error)

// Config says how requests are judged. All fields without a default are required.
type Config struct {
	// Policy returns the snapshot in force; policy.Engine.Snapshot is one. It is called once per request.
	Policy func() *policy.Snapshot

	Session  SessionConfig
	Elevated TokenConfig
	// MFA is the old action-based token. A nil Verify refuses every operation that needs one.
	MFA MFAConfig

	Environment EnvironmentConfig
	Client      ClientConfig
	Device      DeviceConfig

	Ledger        ledger.Store
	LedgerTimeout time.Duration // for one store operation, default 1 s
	// SpendBudget is how long before a request's Deadline a token is not spent any more: reserving and answering take time.
	// Default 60 ms.
	SpendBudget time.Duration

	Leeway time.Duration // clock difference allowed to issuers; also how much longer spent keys are kept

	// DangerouslyPassUnmatched forwards requests that no route matches, unjudged.
	DangerouslyPassUnmatched bool

	// Record takes the decision record. With RecordIntent its failure refuses the request before anything is spent.
	Record       func(*decisionlog.Record) error
	RecordIntent bool
	// Hash makes a subject or token identity unreadable for the record; decisionlog.Log.Hash is one.
	Hash func(kind, value string) string
	// Observe is called once per decision with how long the gate took. The verdict is only lent.
	Observe func(v *Verdict, took time.Duration)

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

// SessionConfig says where the base session token travels.
type SessionConfig struct {
	Verify VerifyFunc
	Header string // default Authorization; a value there is "Bearer <token>"
	Cookie string // "" = not read from a cookie
	// Check asks the backend whether a proven session still stands: nil, standing.ErrEnded, or any other error where that is
	// not known, which refuses. Nil asks nobody.
	Check func(context.Context, standing.Session) error
}

// TokenConfig says where the elevated access token travels: as the bare value of one header.
type TokenConfig struct {
	Verify VerifyFunc
	Header string
}

// MFAConfig is TokenConfig for the old action-based token.
type MFAConfig struct {
	Verify VerifyFunc
	Header string
	// Remember is how long the key of a token without exp is kept, default 30 days.
	Remember time.Duration
	// EnrolledClaim names a session claim that tells whether the user has a second factor: a boolean, or a list of credentials
	// such as verified_credentials. Whatever else it is, or "" here, counts as enrolled.
	EnrolledClaim string
}

// EnvironmentConfig names the candidates that must agree with the session's environment.
type EnvironmentConfig struct {
	Fixed  string // the only environment behind this gate; "" = taken from the session
	Param  string // route parameter, such as environmentId
	Header string
}

// ClientConfig names the headers in which clients declare themselves.
type ClientConfig struct {
	APIVersionHeader string
	SDKVersionHeader string // "<SDK>/<release>"
	// What stands in where that header says nothing: a claim of the session with the same text, then a header with the bare
	// release of the wallet iframe's core. "" reads none.
	SDKVersionClaim        string
	WalletSDKVersionHeader string
	DenyUndeclared         bool
}

// DeviceConfig names the session scopes that tell how far a sign-in has come, and what a proof of a device's key is worth.
type DeviceConfig struct {
	RegisteredScope     string // user:basic
	UnregisteredScope   string // device:register
	AdditionalAuthScope string // requiresAdditionalAuth
	// KeyClaim names the session claim with the device's public key, as a proof spells it; "" binds proofs to no session.
	KeyClaim string
	// NonceLifetime is how long a spent nonce is remembered: at least as long as the backend accepts it. Default 24 h.
	NonceLifetime time.Duration
}

func (c *Config) check() error {
	var errs []error
	missing := func(name string, absent bool) {
		if absent {
			errs = append(errs, fmt.Errorf("gate: config: %s is required", name))
		}
	}
	missing("Policy", c.Policy == nil)
	missing("Session.Verify", c.Session.Verify == nil)
	missing("Elevated.Verify", c.Elevated.Verify == nil)
	missing("Elevated.Header", c.Elevated.Header == "")
	missing("Ledger", c.Ledger == nil)
	missing("Device.RegisteredScope", c.Device.RegisteredScope == "")
	missing("Device.UnregisteredScope", c.Device.UnregisteredScope == "")
	if c.RecordIntent {
		missing("Record", c.Record == nil)
	}
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	if c.Session.Header == "" && c.Session.Cookie == "" {
		c.Session.Header = "Authorization"
	}
	for _, name := range []*string{
		&c.Session.Header, &c.Elevated.Header, &c.MFA.Header, &c.Environment.Header, &c.Client.APIVersionHeader, &c.Client.SDKVersionHeader,
		&c.Client.WalletSDKVersionHeader,
	} {
		*name = http.CanonicalHeaderKey(*name)
	}
	if c.SpendBudget == 0 {
		c.SpendBudget = 60 * time.Millisecond
	}
	if c.LedgerTimeout == 0 {
		c.LedgerTimeout = time.Second
	}
	if c.Device.NonceLifetime == 0 {
		c.Device.NonceLifetime = defaultNonceLifetime
	}
	if c.MFA.Remember == 0 {
		c.MFA.Remember = 30 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Record == nil {
		c.Record = func(*decisionlog.Record) error { return nil }
	}
	if c.Observe == nil {
		c.Observe = func(*Verdict, time.Duration) {}
	}
	if c.Hash == nil {
		c.Hash = func(string, string) string { return "" }
	}
}
