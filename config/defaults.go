package config

import "time"

// Defaults returns a Config in which every key that may be absent has the value it then has. It is pure; each call
// returns a fresh one. It does not validate: Upstream and Session have no defaults.
func Defaults() *Config {
	return &Config{
		Listen: "127.0.0.1:8080",
		TLS:    TLS{MinVersion: "TLS1.2"},
		Admin:  Admin{Listen: "127.0.0.1:8081"},
		ExtAuthz: ExtAuthz{
			TLS: TLS{MinVersion: "TLS1.2"}, MaxStreams: 1000, MaxMessage: 11 * MiB, SpendBudget: 60 * time.Millisecond,
		},
		ForwardAuth: ForwardAuth{TLS: TLS{MinVersion: "TLS1.2"}},
		Session: Session{
			Header:  "Authorization",
			Forward: true,
			Scopes:  []string{"user:basic", "requiresAdditionalAuth", "userDataForm", "waasBackupToken", "device:register"},
			Check:   SessionCheck{Cache: 10 * time.Second, Timeout: 2 * time.Second},
		},
		Elevated: Elevated{
			Header:      "x-dyn-elevated-access-token",
			MaxLifetime: 10 * time.Minute,
			Scopes:      tokenScopes(),
		},
		MFA: MFA{Header: "x-mfa-auth-token", Remember: 30 * 24 * time.Hour, Introspection: Introspection{Timeout: 3 * time.Second}},
		JWKS: JWKS{
			StartWait:    30 * time.Second,
			MinRefresh:   15 * time.Second,
			RefreshEvery: 5 * time.Minute,
			MaxStale:     time.Hour,
			Timeout:      3 * time.Second,
		},
		Leeway: 10 * time.Second,
		Environment: Environment{
			From: "session", PathParam: "environmentId",
			Settings: EnvironmentSettings{Every: time.Minute, Timeout: 5 * time.Second, CacheFile: "/var/lib/stepward/settings.json"},
		},
		Client: Client{APIVersionHeader: "x-dyn-api-version", Undeclared: "allow", SDKVersionHeader: "x-dyn-version",
			SDKVersionClaim: "sdkVersion", WalletSDKVersionHeader: "x-dyn-wallet-sdk-version"},
		Device: Device{
			RegisteredScope:     "user:basic",
			UnregisteredScope:   "device:register",
			AdditionalAuthScope: "requiresAdditionalAuth",
			NonceLifetime:       24 * time.Hour,
		},
		Policy:          Policy{WatchInterval: 2 * time.Second, CacheSize: 10_000, EvalTimeout: time.Second},
		UnmatchedRoutes: "deny",
		Ledger:          Ledger{Kind: LedgerBolt, Path: "/var/lib/stepward/ledger.db"},
		LedgerOptions:   LedgerOptions{Capacity: 1_000_000, ReserveTimeout: time.Second, Prefix: "stepward", WaitTimeout: 30 * time.Millisecond},
		Challenge: Challenge{
			Profile:    "sdk",
			Realm:      "wallet",
			TypeBase:   "urn:stepward:problem:",
			Domain:     "stepward.dev",
			RetryAfter: time.Second,
		},
		IdentityHeaders: IdentityHeaders{
			Subject:    "Stepward-Subject",
			Scopes:     "Stepward-Scopes",
			DecisionID: "Stepward-Decision-Id",
		},
		Limits: Limits{
			MaxHeader:              32 * KiB,
			MaxBody:                10 * MiB,
			MaxConnections:         10_000,
			ReadHeaderTimeout:      10 * time.Second,
			IdleTimeout:            time.Minute,
			BodyIdle:               30 * time.Second,
			WriteIdle:              time.Minute,
			Stream:                 time.Hour,
			Drain:                  30 * time.Second,
			UpstreamDial:           5 * time.Second,
			UpstreamResponseHeader: time.Minute,
		},
		DecisionLog: DecisionLog{To: "stdout", Buffer: 4096},
		Log:         Log{Level: "info", Format: "text"},
	}
}

// tokenScopes are Dynamic's elevated scopes. New ones keep arriving: the operator adds them to elevated.scopes.
func tokenScopes() []string {
	return []string{
		"credential:link", "credential:unlink", "credential:update",
		"user:update", "user:delete",
		"wallet:export", "wallet:sign", "wallet:delegate", "wallet:refresh", "wallet:reshare", "wallet:delete", "wallet:restore",
		"business_account:member:add", "business_account:member:remove", "business_account:member:role:update",
		"business_account:signer:add", "business_account:signer:remove", "business_account:link_wallet",
		"business_account:wallet:create", "business_account:wallet:remove", "business_account:transfer_ownership",
		"business_account:governance:update", "business_account:proposal:approve", "business_account:proposal:veto",
		"business_account:role:define", "business_account:role:delete",
		"console:admin_action:review", "console:approval_workflow:update", "console:member:invite", "console:mfa:reset",
		"console:project:delete", "console:settings:update", "console:sso:update", "console:user:delete",
	}
}

// setLedgerDefaults sets what depends on the kind of ledger: a server on the network that has not answered in this time is
// more likely gone than slow.
func (c *Config) setLedgerDefaults() {
	if _, set := c.source.at["ledger_options.reserve_timeout"]; set {
		return
	}
	switch c.Ledger.Kind {
	case LedgerRedis:
		c.LedgerOptions.ReserveTimeout = 50 * time.Millisecond
	case LedgerPostgres:
		c.LedgerOptions.ReserveTimeout = 250 * time.Millisecond
	}
}
