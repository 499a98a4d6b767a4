// Package config is the file an operator writes: its types, how it is read and what may stand in it.
//
// The comments of the fields are the manual: docs/configuration.md and the JSON Schema are generated from them. A file is
// decoded strictly over Defaults, checked as a whole, and every problem is reported at once with line, field, fault and
// remedy. Nothing here opens a socket, starts a goroutine or changes what it was given; only Load and CheckFiles read files.
package config

import (
	"net/netip"
	"net/url"
	"time"
)

//go:generate go test -run ^TestGeneratedFilesAreFresh$ . -args -update

// Config is the whole file. The zero value is not usable: it comes from Load or Parse, which start from Defaults.
// It is read-only after that and safe for concurrent use.
type Config struct {
	// Listen is the address of the reverse-proxy door, as host:port. Port 0 takes a free one.
	Listen string `yaml:"listen" form:"address"`
	// TLS makes the reverse-proxy door speak HTTPS. Certificates are read again when their files change.
	TLS TLS `yaml:"tls"`
	// Upstream is the backend, an http or https URL without path, query or user information. The path of a request is
	// sent as it came. Required, unless other proxies forward and only ask here (ext_authz, forward_auth): without it the
	// reverse-proxy door stays closed.
	Upstream *url.URL `yaml:"upstream" form:"origin"`
	// UpstreamTLS says how an https backend is verified and how Stepward identifies itself to it.
	UpstreamTLS UpstreamTLS `yaml:"upstream_tls"`
	// ExtAuthz is the door for Envoy, whose ext_authz filter asks here over gRPC before it forwards.
	ExtAuthz ExtAuthz `yaml:"ext_authz"`
	// ForwardAuth is the door for nginx (auth_request), Traefik (ForwardAuth), Caddy (forward_auth), and Envoy's ext_authz over HTTP.
	// They ask over HTTP before they forward. Whoever asks must be one of trusted_proxies.
	ForwardAuth ForwardAuth `yaml:"forward_auth"`
	// Admin is the listener for /healthz, /readyz and /metrics.
	Admin Admin `yaml:"admin"`
	// TrustedProxies are the networks whose X-Forwarded-* headers are believed, as CIDRs. Networks wider than any private
	// one (0.0.0.0/0, ::/0, anything above /8 or, for IPv6, /7) are refused.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// UnderscoreHeaders are header names with an underscore that may reach the backend. All others are removed, because
	// many backends read X_User as X-User. Names that could be read as a header with a meaning are refused.
	UnderscoreHeaders []string `yaml:"underscore_headers" form:"underscored"`

	// Session is the base session token.
	Session Session `yaml:"session" required:"true"`
	// Elevated is the elevated access token that a step-up yields.
	Elevated Elevated `yaml:"elevated"`
	// MFA is the old action-based token, for environments whose minimum version is below 2026_04_01.
	MFA MFA `yaml:"mfa"`
	// JWKS says how keys are fetched and for how long they are believed.
	JWKS JWKS `yaml:"jwks"`
	// Leeway is how far the clocks of issuers may differ from ours, at most 60s. Verification and the time for which
	// spent tokens are remembered use the same value.
	Leeway time.Duration `yaml:"leeway" zero:"none"`

	// Environment says which environment a request belongs to.
	Environment Environment `yaml:"environment"`
	// Client says in which headers clients declare what they are.
	Client Client `yaml:"client"`
	// Device names the session scopes that tell how far a sign-in has come, and what a proof of a device's key is worth.
	Device Device `yaml:"device"`

	// Policy is where the Rego comes from and what its evaluation may cost.
	Policy Policy `yaml:"policy"`
	// UnmatchedRoutes is the answer to requests that no route of the policy matches: deny, or dangerously_pass, which
	// forwards them unjudged. A catch-all route in the policy is the better way.
	UnmatchedRoutes string `yaml:"unmatched_routes" enum:"deny,dangerously_pass"`

	// Ledger is where spent tokens are remembered. One Stepward: "bolt:" and a path (bolt:///var/lib/stepward/ledger.db, or
	// bolt:ledger.db beside this file), or "memory:", which forgets at a restart and needs dangerously_single_replica. A
	// fleet: a Redis or Valkey (redis://user@host:6379/0; rediss:// with TLS, redis+sentinel://host:26379,host:26379/master,
	// redis+cluster://host:6379,host:6379, and rediss+sentinel://, rediss+cluster://) or a PostgreSQL
	// (postgres://user@host:5432/database?sslmode=verify-full). Passwords stand in ledger_options.password_file.
	Ledger Ledger `yaml:"ledger" form:"ledger"`
	// LedgerOptions bounds the ledger.
	LedgerOptions LedgerOptions `yaml:"ledger_options"`
	// DangerouslySingleReplica is the operator's word that exactly one Stepward stands before the backend, ever, also
	// during a rolling update: with the memory: ledger each replica would accept a single-use token once.
	DangerouslySingleReplica bool `yaml:"dangerously_single_replica"`

	// Challenge is how refusals are worded.
	Challenge Challenge `yaml:"challenge"`
	// IdentityHeaders carry verified facts to the backend. A client's own copies are always deleted first.
	IdentityHeaders IdentityHeaders `yaml:"identity_headers"`
	// Limits bound what a client or a backend can make Stepward hold.
	Limits Limits `yaml:"limits"`

	// DecisionLog is the record of every decision, as JSON lines without token material.
	DecisionLog DecisionLog `yaml:"decision_log"`
	// Log is the operational log, on standard error.
	Log Log `yaml:"log"`

	source source
}

// TLS is a server's certificate. Both files or neither.
type TLS struct {
	// CertFile is the PEM certificate chain, leaf first.
	CertFile string `yaml:"cert_file" form:"file"`
	// KeyFile is the PEM private key of the leaf.
	KeyFile string `yaml:"key_file" form:"file"`
	// ClientCAFile makes the door ask for a client certificate and refuse connections without one that these PEM
	// certificates have signed.
	ClientCAFile string `yaml:"client_ca_file" form:"file"`
	// MinVersion is the oldest protocol that is spoken.
	MinVersion string `yaml:"min_version" enum:"TLS1.2,TLS1.3"`
}

// ExtAuthz is Envoy's door. A token is spent by the answer that lets its request pass: what the backend answers is not known here,
// so that release_on of a policy has no effect.
type ExtAuthz struct {
	// Listen is its address, as host:port or unix:///path. Absent, the door stays closed.
	Listen string `yaml:"listen" form:"socket"`
	// TLS makes it speak TLS. Whoever reaches this door says what a client sent, so that beyond loopback and sockets
	// client_ca_file should name who may.
	TLS TLS `yaml:"tls"`
	// MaxStreams bounds the questions under way on one connection.
	MaxStreams int `yaml:"max_streams"`
	// MaxMessage bounds one question, the client's body included where Envoy sends it. Keep it well above Envoy's
	// with_request_body.max_request_bytes: a question beyond it is answered by an error and not by a refusal.
	MaxMessage Size `yaml:"max_message"`
	// SpendBudget is what must be left of Envoy's timeout for a token to be spent: less could not be answered in time, and the
	// token would be gone for nothing.
	SpendBudget time.Duration `yaml:"spend_budget"`
	// Reflection offers gRPC server reflection, for grpcurl.
	Reflection bool `yaml:"reflection"`
	// DangerouslyRepeatAnswers is for how long a question that Envoy asks again with the same x-request-id, target, header and
	// body is answered as before, so that Envoy's own retries do not find their token spent. Only peers with a client
	// certificate or on a socket can repeat. Whoever can choose the x-request-id can use a token twice within this time: let
	// Envoy make the ids. At most 2s; 0 repeats nothing.
	DangerouslyRepeatAnswers time.Duration `yaml:"dangerously_repeat_answers" zero:"never"`
}

// ForwardAuth is the door of the proxies that ask over HTTP.
type ForwardAuth struct {
	// Listen is its address, as host:port or unix:///path. Absent, the door stays closed.
	Listen string `yaml:"listen" form:"socket"`
	// TLS makes it speak HTTPS.
	TLS TLS `yaml:"tls"`
}

// UpstreamTLS verifies an https backend.
type UpstreamTLS struct {
	// CAFile holds the PEM certificates that may sign the backend's; without it the system's are used.
	CAFile string `yaml:"ca_file" form:"file"`
	// CertFile is the PEM client certificate shown to the backend.
	CertFile string `yaml:"cert_file" form:"file"`
	// KeyFile is the PEM private key of cert_file.
	KeyFile string `yaml:"key_file" form:"file"`
	// ServerName is the name the backend's certificate must carry; without it the host of upstream.
	ServerName string `yaml:"server_name" form:"host"`
}

// Admin is the listener for machines that watch over Stepward.
type Admin struct {
	// Listen is its address, as host:port. It has no authentication: keep it on loopback or in a private network.
	Listen string `yaml:"listen" form:"address"`
}

// Strings is a set of texts. In the file one text may stand without a list.
type Strings []string

// Verifier says which tokens are believed. Either one issuer (issuer, audience, jwks_url or jwks_file) or the list
// issuers in place of the four. (*Config).SessionIssuers and its siblings return it resolved.
type Verifier struct {
	// Issuer is what iss must say, letter by letter as the token spells it; Dynamic's has no scheme
	// (app.dynamicauth.com/<environment>). A list accepts several spellings of the one issuer.
	Issuer Strings `yaml:"issuer"`
	// Audience is what aud must contain one of, letter by letter. There is no way to accept tokens for everybody.
	Audience Strings `yaml:"audience"`
	// JWKSURL is where the issuer publishes its keys: https, or http on loopback. Redirects are not followed.
	JWKSURL *url.URL `yaml:"jwks_url" form:"jwks"`
	// JWKSFile is a JWK Set on disk, in place of jwks_url. It is read again when it changes.
	JWKSFile string `yaml:"jwks_file" form:"file"`
	// Algorithms are the signature algorithms that are believed, from RS256, RS384, RS512, ES256, ES384, ES512 and EdDSA.
	// Absent means RS256 alone.
	Algorithms []string `yaml:"algorithms" enum:"RS256,RS384,RS512,ES256,ES384,ES512,EdDSA"`
	// Types are the accepted values of the token's typ header; "" accepts a token without one. Absent means JWT or none.
	Types []string `yaml:"types"`
	// Issuers are several environments behind one gate, in place of issuer, audience, jwks_url and jwks_file. Each issuer
	// is verified with its own keys and only with those.
	Issuers []Issuer `yaml:"issuers"`
	// RequireJTI refuses tokens without a jti. Without it such tokens are told apart by what they sign.
	RequireJTI bool `yaml:"require_jti"`
}

// Issuer is one issuer of one environment.
type Issuer struct {
	// Environment is the environment for which this issuer speaks. Required in a list of issuers.
	Environment string `yaml:"environment"`
	// Issuer is what iss must say, letter by letter.
	Issuer Strings `yaml:"issuer"`
	// Audience is what aud must contain one of.
	Audience Strings `yaml:"audience"`
	// JWKSURL is where the issuer publishes its keys: https, or http on loopback.
	JWKSURL *url.URL `yaml:"jwks_url" form:"jwks"`
	// JWKSFile is a JWK Set on disk, in place of jwks_url.
	JWKSFile string `yaml:"jwks_file" form:"file"`
	// Algorithms are this issuer's signature algorithms; absent means those of the section.
	Algorithms []string `yaml:"algorithms" enum:"RS256,RS384,RS512,ES256,ES384,ES512,EdDSA"`
	// Types are this issuer's accepted typ values; absent means those of the section.
	Types []string `yaml:"types"`
}

// Session is the base session token.
type Session struct {
	Verifier `yaml:",inline"`
	// Header is where the token travels, as "Bearer <token>". "" reads no header.
	Header string `yaml:"header" form:"header?"`
	// Cookie is the cookie in which the token travels, such as DYNAMIC_JWT_TOKEN. It is read besides header; a request
	// that brings two different tokens is refused. Cookies are sent by browsers unasked: mind CSRF.
	Cookie string `yaml:"cookie" form:"cookie"`
	// MaxLifetime caps exp - iat of the token; 0 sets no cap, since sessions may last for weeks.
	MaxLifetime time.Duration `yaml:"max_lifetime" zero:"no cap"`
	// Forward passes the token on to the backend, which has its own use for it.
	Forward bool `yaml:"forward"`
	// Scopes are the words that only session tokens carry. A token with any of them is never an elevated one: the two may
	// share issuer, key and typ.
	Scopes []string `yaml:"scopes" form:"scope"`
	// Check asks the backend whether a session still stands.
	Check SessionCheck `yaml:"check"`
}

// SessionCheck asks the backend whether a session still stands. A session that was revoked, or whose device was, keeps a good
// signature until it expires; this ends it at once, at the price of a question to the backend.
type SessionCheck struct {
	// Path is a GET endpoint of upstream that answers 200 or 204 while the session stands and 401 when it does not;
	// {environmentId} in it becomes the session's environment. Dynamic's is /api/v0/sdk/{environmentId}/session. Any other
	// answer, or none, refuses with 503. Only sessions of finished sign-ins (device.registered_scope) are asked about. Without
	// a path nobody is asked.
	Path string `yaml:"path" form:"check"`
	// Cache is for how long an answer is believed; 0 asks every time. Operations that need an elevated or MFA token, and
	// those on which the policy says recheck, ask every time.
	Cache time.Duration `yaml:"cache" zero:"asks every time"`
	// Timeout bounds one question.
	Timeout time.Duration `yaml:"timeout"`
}

// Elevated is the elevated access token.
//
// A section that names none of issuer, audience, jwks_url, jwks_file, algorithms and issuers takes all of them from
// session: Dynamic signs both kinds of token with the one key of the environment. That is safe because the kinds are told
// apart by scope (elevated.scopes, session.scopes) and by the claim singleUse, never by the key; where an issuer does mark
// its elevated tokens with a typ or an audience of their own, say so here, which adds a second wall. A section that
// names any of them must name them all.
type Elevated struct {
	Verifier `yaml:",inline"`
	// Header is where the token travels, as a bare value.
	Header string `yaml:"header" form:"header"`
	// MaxLifetime caps exp - iat: a longer-lived token is invalid.
	MaxLifetime time.Duration `yaml:"max_lifetime"`
	// Forward passes the token on to the backend. Only for a backend that verifies it once more and never spends it
	// elsewhere: whoever holds the token is the user.
	Forward bool `yaml:"forward"`
	// Scopes are the words that only elevated tokens carry. A token whose scopes are all among them is never a session.
	// Name every scope that your policy asks for.
	Scopes []string `yaml:"scopes" form:"scope"`
}

// MFA is the old action-based token. A JWT is proved by its issuer, an opaque token by asking the backend that made it
// (introspection); both may be there. Without either no such token can be proved, and operations that need one are refused
// unless an elevated token comes in its place. Nothing is taken from session.
type MFA struct {
	Verifier `yaml:",inline"`
	// Header is where the token travels, as a bare value.
	Header string `yaml:"header" form:"header"`
	// MaxLifetime caps exp - iat; 0 sets no cap.
	MaxLifetime time.Duration `yaml:"max_lifetime" zero:"no cap"`
	// Remember is how long a spent token without exp is remembered.
	Remember time.Duration `yaml:"remember"`
	// Introspection is whom to ask about tokens that are no JWTs, and about all of them where no issuer is named.
	Introspection Introspection `yaml:"introspection"`
	// EnrolledClaim names the session claim that tells whether the user has a second factor: true or false, or a list of
	// credentials in the form of verified_credentials, the claim of Dynamic's full JWT, where an entry with the format totp
	// or passkey is one. A user without needs no token, unless the environment says mfa_required. Everybody counts as enrolled
	// without this key, and whose session lacks the claim or has it in another form: a minified JWT says nothing.
	EnrolledClaim string `yaml:"enrolled_claim"`
	// Forward passes the token on to the backend, also where Stepward did not need it. It stays false without an issuer
	// too: a backend that still judges these tokens itself needs it said here.
	Forward bool `yaml:"forward"`
}

// Introspection is an endpoint as in RFC 7662. It gets a POST with token and token_type_hint=mfa_token as a form, and answers 200
// with a JSON object: active, and if that is true sub (required, the session's), and if it knows them exp, iat, jti and
// environment_id. It must not spend the token, which Stepward does, and must call only MFA tokens active: an answer with a scope,
// or a token_type other than mfa_token, is refused. Answers are not remembered. Without iat tokens are refused while a new ledger
// does not know what was spent before it (mfa.remember). An endpoint that reads tokens otherwise than letter by letter should
// answer a jti.
type Introspection struct {
	// URL is the endpoint's: https, or http on loopback. Redirects are not followed.
	URL *url.URL `yaml:"url" form:"endpoint"`
	// BearerFile holds the bearer token with which Stepward authenticates itself there, on one line. It is read at the start.
	BearerFile string `yaml:"bearer_file" form:"file"`
	// BasicFile holds client_id:client_secret for HTTP basic, on one line, in place of bearer_file. It is read at the start.
	BasicFile string `yaml:"basic_file" form:"file"`
	// CAFile holds the PEM certificates that the endpoint's certificate may come from, in place of the system's.
	CAFile string `yaml:"ca_file" form:"file"`
	// Timeout bounds one question; beyond it the request gets 503.
	Timeout time.Duration `yaml:"timeout"`
}

// JWKS bounds the fetching of keys.
type JWKS struct {
	// StartWait is how long a starting Stepward tries to get its keys before it gives up.
	StartWait time.Duration `yaml:"start_wait"`
	// MinRefresh is the least time between two fetches from one issuer, however many unknown key ids arrive.
	MinRefresh time.Duration `yaml:"min_refresh"`
	// RefreshEvery is the time between two regular fetches; a key that the issuer removed is refused after this.
	RefreshEvery time.Duration `yaml:"refresh_every"`
	// MaxStale is how long the last good keys are believed while the issuer cannot be reached; then requests get 503.
	MaxStale time.Duration `yaml:"max_stale"`
	// Timeout bounds one fetch.
	Timeout time.Duration `yaml:"timeout"`
}

// Environment says which environment a request belongs to. A client can never choose one: path parameter and header are
// only compared with the session's.
type Environment struct {
	// From names the source: session, which is the environment of the issuer that signed the session or its claim
	// environment_id.
	From string `yaml:"from" enum:"session"`
	// Fixed is the only environment behind this gate, in place of from.
	Fixed string `yaml:"fixed"`
	// PathParam is the route parameter that must agree with the environment; it counts alone on routes without a
	// session. "" reads none.
	PathParam string `yaml:"path_param"`
	// Header is a header that must agree with the environment. "" reads none.
	Header string `yaml:"header" form:"header?"`
	// Settings makes Stepward follow what the backend publishes of each environment: its minimum API version among others.
	Settings EnvironmentSettings `yaml:"settings"`
}

// EnvironmentSettings says where the behaviour of environments is published (docs/environments.md). What the policy's data says of
// an environment always wins over it.
type EnvironmentSettings struct {
	// URL is where the settings of an environment are, with {environmentId} in its path for the id. A path alone is asked of
	// upstream: /api/v0/sdk/{environmentId}/settings. Elsewhere it must be https, or http on loopback. Absent, nothing is asked.
	URL *url.URL `yaml:"url" form:"settings"`
	// Environments are the ids to ask about. Absent means those of session.issuers, or environment.fixed.
	Environments []string `yaml:"environments" form:"environment"`
	// Every is the time between two polls of each environment.
	Every time.Duration `yaml:"every"`
	// Timeout bounds one poll.
	Timeout time.Duration `yaml:"timeout"`
	// CacheFile keeps the last good settings over a restart, so that a floor that was seen holds although the backend cannot
	// be reached, and cannot be lowered by then. "" keeps none.
	CacheFile string `yaml:"cache_file" form:"file?"`
	// DangerouslyAllowDowngrade are the environments whose minimum API version may become lower than it was. For all others
	// such settings are refused as a whole.
	DangerouslyAllowDowngrade []string `yaml:"dangerously_allow_downgrade" form:"environment"`
}

// Client says how clients declare themselves. Declarations can only add refusals.
type Client struct {
	// APIVersionHeader carries a dated version (2026_04_01) or, with Dynamic's SDKs, API/<semver>, which declares nothing.
	APIVersionHeader string `yaml:"api_version_header" form:"header"`
	// Undeclared is the answer to clients that declare no dated version: allow gives them the environment's behaviour,
	// deny refuses them.
	Undeclared string `yaml:"undeclared" enum:"allow,deny"`
	// SDKVersionHeader carries <SDK>/<semver>.
	SDKVersionHeader string `yaml:"sdk_version_header" form:"header"`
	// SDKVersionClaim is the session claim that says the same of the SDK that signed in. It counts where the header says nothing.
	SDKVersionClaim string `yaml:"sdk_version_claim"`
	// WalletSDKVersionHeader carries the bare release of the wallet iframe's core, which counts, as WalletSDK, where neither of
	// the two says anything.
	WalletSDKVersionHeader string `yaml:"wallet_sdk_version_header" form:"header"`
}

// Device names session scopes, and says what a proof of a device's key is worth. See docs/devices.md.
type Device struct {
	// RegisteredScope is carried by a completed sign-in on a registered device.
	RegisteredScope string `yaml:"registered_scope" form:"scope"`
	// UnregisteredScope is carried while the device waits to be registered.
	UnregisteredScope string `yaml:"unregistered_scope" form:"scope"`
	// AdditionalAuthScope is carried while the sign-in's own second factor is outstanding.
	AdditionalAuthScope string `yaml:"additional_auth_scope" form:"scope"`
	// KeyClaim names the session claim in which the issuer gives the device's public key, as the compressed point in
	// hexadecimal. A proof must then be of that key. Absent, a proof shows that the client holds some device's key.
	KeyClaim string `yaml:"key_claim"`
	// NonceLifetime is how long a spent nonce of a proof is remembered: at least as long as the backend accepts it.
	NonceLifetime time.Duration `yaml:"nonce_lifetime"`
}

// Policy is the Rego.
type Policy struct {
	// Path is a directory of .rego files and data.yaml. Absent means the embedded policy.
	Path string `yaml:"path" form:"file"`
	// WatchInterval is how often path is looked at for changes; 0 reloads on SIGHUP only.
	WatchInterval time.Duration `yaml:"watch_interval" zero:"SIGHUP only"`
	// CacheSize is how many requirements are kept; 0 asks the policy every time.
	CacheSize int `yaml:"cache_size" zero:"off"`
	// EvalTimeout bounds one evaluation; beyond it the request gets 503. One takes a millisecond or two; the rest is for
	// machines that are busy: Linux stops a container that has used up its CPU limit for up to 100 ms at a time.
	EvalTimeout time.Duration `yaml:"eval_timeout"`
}

// LedgerKind says what a ledger is made of.
type LedgerKind string

// The kinds of ledger. The zero value is none of them.
const (
	LedgerMemory   LedgerKind = "memory"
	LedgerBolt     LedgerKind = "bolt"
	LedgerRedis    LedgerKind = "redis"
	LedgerPostgres LedgerKind = "postgres"
)

// Shared reports whether several Stepwards can share such a ledger.
func (k LedgerKind) Shared() bool { return k == LedgerRedis || k == LedgerPostgres }

// Ledger is where spent tokens are remembered.
type Ledger struct {
	Kind LedgerKind
	Path string // of LedgerBolt: the database file, "" otherwise
	URL  string // of the shared kinds: the server's address, without a password; "" otherwise
}

// LedgerOptions bounds the ledger.
type LedgerOptions struct {
	// Capacity is how many spent tokens are remembered at most. When it is full, single-use operations get 503: nothing
	// that could still be replayed is ever forgotten.
	Capacity int `yaml:"capacity"`
	// ReserveTimeout bounds the spending of one token; beyond it the request gets 503. Without it 1s for bolt: and memory:,
	// 50ms for Redis, 250ms for PostgreSQL.
	ReserveTimeout time.Duration `yaml:"reserve_timeout"`
	// PasswordFile holds the password for Redis or PostgreSQL, read at the start.
	PasswordFile string `yaml:"password_file" form:"file"`
	// Prefix begins every key in Redis, and is the schema in PostgreSQL. Stepwards that protect one backend share it.
	Prefix string `yaml:"prefix" form:"quoted"`
	// CAFile holds the PEM certificates that a rediss:// server's certificate may come from, in place of the system's.
	// PostgreSQL takes it from sslrootcert in its address.
	CAFile string `yaml:"ca_file" form:"file"`
	// CertFile is the PEM certificate shown to a rediss:// server.
	CertFile string `yaml:"cert_file" form:"file"`
	// KeyFile is the PEM private key of cert_file.
	KeyFile string `yaml:"key_file" form:"file"`
	// WaitReplicas is how many Redis replicas must have a reservation before the request is forwarded; 0 waits for none.
	// It narrows what a failover can lose, at the price of 503 when replicas are missing.
	WaitReplicas int `yaml:"wait_replicas" zero:"none"`
	// WaitTimeout bounds the wait for replicas.
	WaitTimeout time.Duration `yaml:"wait_timeout"`
}

// Challenge is how refusals are worded.
type Challenge struct {
	// Profile chooses status and media type of a step-up challenge: sdk is 403 and application/json, which Dynamic's SDKs
	// read; rfc9470 is 401 and application/problem+json.
	Profile string `yaml:"profile" enum:"sdk,rfc9470"`
	// Realm is the realm of WWW-Authenticate.
	Realm string `yaml:"realm" form:"quoted"`
	// TypeBase is put before the code to make the problem's type, such as https://docs.example/problems/.
	TypeBase string `yaml:"type_base" form:"uri"`
	// Domain is the domain of the ErrorInfo that gRPC callers get.
	Domain string `yaml:"domain" form:"quoted"`
	// CORS lets browser scripts read refusals. The backend's own answers are not touched.
	CORS CORS `yaml:"cors"`
	// VerifyURL is a page on which the user can verify, told to the client in device and step-up challenges.
	VerifyURL *url.URL `yaml:"verify_url" form:"page"`
	// ResourceMetadata is the URL of the protected resource's metadata (RFC 9728), told in WWW-Authenticate.
	ResourceMetadata *url.URL `yaml:"resource_metadata" form:"page"`
	// ACRValues are told in step-up challenges (RFC 9470).
	ACRValues []string `yaml:"acr_values" form:"scope"`
	// Methods are the verification methods told in step-up challenges where the policy names none.
	Methods []string `yaml:"methods" form:"scope"`
	// RetryAfter is the least Retry-After of a 503, in whole seconds.
	RetryAfter time.Duration `yaml:"retry_after"`
}

// CORS is for browsers.
type CORS struct {
	// AllowedOrigins are the origins whose scripts may read refusals, as scheme://host[:port], or "*" alone for all.
	AllowedOrigins []string `yaml:"allowed_origins" form:"cors"`
	// AllowCredentials lets them do so in requests with cookies; not together with "*".
	AllowCredentials bool `yaml:"allow_credentials"`
}

// IdentityHeaders name the headers that carry verified facts. "" sends none.
type IdentityHeaders struct {
	// Subject carries the session's sub.
	Subject string `yaml:"subject" form:"header?"`
	// Scopes carries the elevated token's scopes, separated by spaces, where the operation required any.
	Scopes string `yaml:"scopes" form:"header?"`
	// DecisionID carries the decision's id, as the decision log has it.
	DecisionID string `yaml:"decision_id" form:"header?"`
	// Environment carries the environment.
	Environment string `yaml:"environment" form:"header?"`
}

// Limits bound clients and backend.
type Limits struct {
	// MaxHeader is the most bytes a request's head may have.
	MaxHeader Size `yaml:"max_header"`
	// MaxBody is the most bytes a request's body may have; 0 sets no limit.
	MaxBody Size `yaml:"max_body" zero:"no limit"`
	// MaxConnections is how many client connections are held at once; those beyond it wait.
	MaxConnections int `yaml:"max_connections"`
	// ReadHeaderTimeout is how long a client may take to send its head.
	ReadHeaderTimeout time.Duration `yaml:"read_header_timeout"`
	// IdleTimeout is how long a client's connection may wait for its next request.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// BodyIdle is how long a client may pause within a body, and how long all of a body may take that the policy reads.
	BodyIdle time.Duration `yaml:"body_idle"`
	// WriteIdle is how long a client may refuse to take any of an answer.
	WriteIdle time.Duration `yaml:"write_idle"`
	// Stream is how long one exchange may last, server-sent events and WebSockets among them.
	Stream time.Duration `yaml:"stream"`
	// Drain is how long requests in flight may take to finish after SIGTERM.
	Drain time.Duration `yaml:"drain"`
	// UpstreamDial bounds connecting to the backend, its TLS handshake included.
	UpstreamDial time.Duration `yaml:"upstream_dial"`
	// UpstreamResponseHeader is how long the backend may take to begin its answer.
	UpstreamResponseHeader time.Duration `yaml:"upstream_response_header"`
}

// DecisionLog is the record of decisions.
type DecisionLog struct {
	// To is stdout, stderr, off, or a file to append to, as a path with at least one slash.
	To string `yaml:"to" form:"sink"`
	// Blocking writes each record before the request goes on, and refuses with 503 what cannot be recorded. Otherwise
	// records are written behind the requests, and those that do not fit the buffer are dropped and counted.
	Blocking bool `yaml:"blocking"`
	// Buffer is how many records may wait.
	Buffer int `yaml:"buffer"`
	// KeyFile is a secret of at least 32 bytes that keys the hashes of subjects and tokens, so that they can be compared
	// across restarts and replicas. Absent means a random key for each process.
	KeyFile string `yaml:"key_file" form:"file"`
}

// Log is the operational log.
type Log struct {
	// Level is the least level that is written.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
	// Format is text or json.
	Format string `yaml:"format" enum:"text,json"`
}
