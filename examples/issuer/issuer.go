// Package issuer is an example: a small token issuer that speaks the part of Dynamic's API which signs people in, registers
// their devices and steps them up. The demo and the end-to-end tests run it in place of the real service.
//
// It is no production issuer. One process owns one file; mail never leaves the process; nobody is asked for a captcha; keys lie
// unencrypted in the file; below the floor a session alone enrols a further second factor, as no step-up is asked for there; and where
// the service's behaviour is not documented, what happens here is a guess.
// What it does, it does for real: codes expire and count wrong guesses; a TOTP code, a recovery code, a challenge, a nonce, an
// assertion and a link work once; passkeys, wallets' and devices' signatures are verified; who has a second factor steps up by
// nothing else; and tokens carry the claims that the service's own carry.
package issuer

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Config says who the issuer is. Dir, Environment and Audience are required.
type Config struct {
	// Dir is an existing directory; the issuer keeps all its state in the file issuer.db there.
	Dir string
	// Environment is the id of the environment, which paths and the claim environment_id name.
	Environment string
	// Issuer is the claim iss; empty means app.dynamicauth.com/<Environment>, without a scheme, as Dynamic spells it.
	Issuer string
	// Audience is the claim aud, and the page that links in mails lead to: the origin of the wallet's web site.
	Audience string
	// Origins are sites besides Audience that people use the wallet on: passkeys and wallet signatures are good for these, and
	// redirects lead to no others.
	Origins []string
	// RelyingParty is the host that passkeys are for; empty means that of Audience.
	RelyingParty string
	// MinimumAPIVersion is the floor of the environment; empty means 2026_04_01. Below it no step-up is asked for, and no device
	// is to be registered.
	MinimumAPIVersion string
	// Actions are the operations for which the environment wants a second factor, as GET settings tells them.
	Actions []Action
	// Storage says where SDKs keep the session, as GET settings tells it: localstorage, cookie or both; empty means localstorage.
	Storage []string
	// Chains are the chain ids that a wallet's message may name; empty means 1, Ethereum's main network.
	Chains []string
	// External, if set, is an authority of the customer's whose tokens sign in and step up.
	External *External
	// Social are the OpenID providers by which people sign in, by the names that SDKs have for them, such as github
	// (models/ProviderEnum.js of sdk-api-core).
	Social map[string]Social
	// IntrospectionSecret is the bearer token of whoever may ask about MFA tokens; empty lets nobody.
	IntrospectionSecret string
	// Wallets, if set, returns the credentials of the wallets that the backend keeps for a user.
	Wallets func(user string) ([]map[string]any, error)
	// Algorithm is RS256, ES256 or EdDSA; empty means RS256. Keys that are in the file already keep theirs until Rotate.
	Algorithm string
	// Code is the code of every verification mail; empty draws a new one for each. Only a demo sets it.
	Code string
	// SessionLifetime is how long session tokens last; zero means an hour.
	SessionLifetime time.Duration
	// Deliver, if set, gets every mail besides the mailbox that Mail reads. It is called by handlers, several at once.
	Deliver func(Mail)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what goes wrong inside; nil discards it.
	Log *slog.Logger
}

// Issuer issues tokens for one environment. It is safe for concurrent use.
type Issuer struct {
	cfg  Config
	db   *bolt.DB
	keys atomic.Pointer[keyset]

	handler http.Handler

	rotate sync.Mutex // held while a new key is made

	mailMu sync.Mutex
	mail   map[string]Mail // the last one, by recipient; guarded by mailMu
}

// New opens the file in cfg.Dir, or creates it with a first key. Close gives the file back.
func New(cfg Config) (*Issuer, error) {
	if cfg.Dir == "" || cfg.Environment == "" || cfg.Audience == "" {
		return nil, errors.New("issuer: Dir, Environment and Audience are required")
	}
	if cfg.Issuer == "" {
		cfg.Issuer = "app.dynamicauth.com/" + cfg.Environment
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = "RS256"
	}
	if cfg.MinimumAPIVersion == "" {
		cfg.MinimumAPIVersion = versionStepUp
	}
	if cfg.Storage == nil {
		cfg.Storage = []string{"localstorage"}
	}
	if cfg.Chains == nil {
		cfg.Chains = []string{"1"}
	}
	cfg.Origins = append([]string{cfg.Audience}, cfg.Origins...)
	cfg.Actions = append([]Action{}, cfg.Actions...)
	if cfg.SessionLifetime == 0 {
		cfg.SessionLifetime = time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, err := bolt.Open(filepath.Join(cfg.Dir, "issuer.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("issuer: open %s: %w", cfg.Dir, err)
	}
	i := &Issuer{cfg: cfg, db: db, mail: map[string]Mail{}}
	if i.handler, err = i.guard(i.endpoints()); err == nil {
		err = i.start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("issuer: %w", err), db.Close())
	}
	return i, nil
}

func (i *Issuer) start() error {
	if err := i.makeBuckets(); err != nil {
		return err
	}
	if err := i.loadKeys(); err != nil {
		return err
	}
	if i.keys.Load() != nil {
		return nil
	}
	return i.Rotate()
}

// Close closes the file. Requests that come later fail.
func (i *Issuer) Close() error { return i.db.Close() }

// Prefix is what the path of every endpoint begins with.
func (i *Issuer) Prefix() string { return "/api/v0/sdk/" + i.cfg.Environment }

// Handler serves the endpoints below Prefix. The issuer checks session tokens itself, as an issuer must, so that it can stand
// behind a gate and beside one.
func (i *Issuer) Handler() http.Handler { return i.handler }

func (i *Issuer) endpoints() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, h handlerFunc) {
		mux.Handle(method+" "+i.Prefix()+path, i.serve(h))
	}
	session := func(method, path string, h sessionFunc) { handle(method, path, i.withSession(h)) }

	handle("GET", "/.well-known/jwks", i.getJWKS)
	handle("GET", "/.well-known/jwks.json", i.getJWKS)

	handle("GET", "/settings", i.settings)
	handle("GET", "/nonce", i.getNonce)
	handle("GET", "/nonces", i.getNonces)
	handle("POST", "/emailVerifications/create", i.createEmailVerification)
	handle("POST", "/emailVerifications/signin", i.signInByCode(byMail))
	handle("POST", "/smsVerifications/create", i.createSMSVerification)
	handle("POST", "/smsVerifications/signin", i.signInByCode(bySMS))
	handle("POST", "/externalAuth/signin", i.signInExternally)
	handle("POST", "/verify", i.signInByWallet)
	handle("POST", "/providers/{provider}/initAuth", i.beginSocial)
	handle("GET", "/providers/{provider}/redirect", i.socialRedirect)
	handle("POST", "/providers/{provider}/signIn", i.signInSocially)
	session("GET", "/session", i.sessionCheck)
	handle("POST", "/refresh", i.refresh)
	session("POST", "/revoke", i.revoke)

	session("POST", "/deviceRegistration", i.registerDevice)
	session("GET", "/deviceRegistrations", i.listDevices)
	session("DELETE", "/deviceRegistrations", i.deleteAllDevices)
	session("DELETE", "/deviceRegistrations/{id}", i.deleteDevice)

	session("GET", "/users", i.getUser)
	session("PUT", "/users", i.updateUser)
	session("DELETE", "/users", i.deleteUser)

	session("GET", "/users/mfa", i.listMFA)
	session("GET", "/users/mfa/methods", i.listMFAMethods)
	session("GET", "/users/mfa/register/totp", i.beginTOTP)
	session("POST", "/users/mfa/register/totp", i.finishTOTP)
	session("PUT", "/users/mfa/{id}", i.setDefaultMFA)
	session("DELETE", "/users/mfa/{id}", i.deleteMFA)
	session("GET", "/users/mfa/recovery", i.getRecovery)
	session("POST", "/users/mfa/recovery", i.newRecovery)

	session("GET", "/users/passkeys", i.listPasskeys)
	session("DELETE", "/users/passkeys", i.deletePasskey)
	session("GET", "/users/passkeys/register", i.beginPasskey)
	session("POST", "/users/passkeys/register", i.finishPasskey)
	session("GET", "/users/passkeys/authenticate", i.beginPasskeyStepUp)

	handle("POST", "/mfaTokens/introspect", i.introspect)
	session("POST", "/stepUp/check", i.stepUpCheck)
	session("POST", "/users/mfa/auth/totp", i.stepUpByTOTP)
	session("POST", "/users/mfa/auth/passkey", i.stepUpByPasskey)
	session("POST", "/users/mfa/auth/recovery", i.stepUpByRecovery)
	session("POST", "/emailVerifications/verify", i.verifyByCode(byMail))
	session("POST", "/smsVerifications/verify", i.verifyByCode(bySMS))
	session("POST", "/providers/{provider}/verify", i.verifySocially)
	session("POST", "/externalAuth/verify", i.stepUpExternally)
	session("POST", "/wallets/verify", i.verifyByWallet(true))
	session("POST", "/verify/link", i.verifyByWallet(false))
	session("POST", "/verify/unlink", i.unlink)
	return mux
}
