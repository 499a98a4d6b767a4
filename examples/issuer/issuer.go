// Package issuer is an example: a small token issuer that speaks the part of Dynamic's API which signs people in, registers
// their devices and steps them up. The demo and the end-to-end tests run it in place of the real service.
//
// It is no production issuer. One process owns one file; mail never leaves the process; nobody is asked for a captcha; keys lie
// unencrypted in the file; and where the service's behaviour is not documented, what happens here is a guess.
// What it does, it does for real: codes expire and count wrong guesses, a TOTP code, a recovery code and an assertion work once,
// nonces and links work once, passkeys, wallet and device signatures are verified, and tokens carry the claims that the service's
// own carry.
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

	"github.com/go-webauthn/webauthn/webauthn"
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
	// Algorithm is RS256, ES256 or EdDSA; empty means RS256. Keys that are in the file already keep theirs until Rotate.
	Algorithm string
	// Code is the code of every verification mail; empty draws a new one for each. Only a demo sets it.
	Code string
	// SessionLifetime is how long session tokens last; zero means an hour.
	SessionLifetime time.Duration
	// Deliver, if set, gets every mail besides the mailbox that Mail reads. It is called by handlers, several at once.
	Deliver func(Mail)
	// External, if set, is the app's own backend, by whose tokens people sign in and step up.
	External *External
	// Social are OpenID providers by the name that paths have for them, such as google.
	Social map[string]Social
	// IntrospectionSecret is the bearer token of whoever may ask about MFA tokens; empty lets nobody.
	IntrospectionSecret string
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

	relying *webauthn.WebAuthn

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
	if i.relying, err = newRelyingParty(cfg.Audience); err != nil {
		return nil, errors.Join(fmt.Errorf("issuer: %w", err), db.Close())
	}
	if err := i.start(); err != nil {
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
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(method, path string, h handlerFunc) {
		mux.Handle(method+" "+i.Prefix()+path, i.serve(h))
	}
	session := func(method, path string, h sessionFunc) { handle(method, path, i.withSession(h)) }

	handle("GET", "/.well-known/jwks", i.getJWKS)
	handle("GET", "/.well-known/jwks.json", i.getJWKS)

	handle("GET", "/nonces", i.getNonces)
	handle("POST", "/emailVerifications/create", i.createEmailVerification)
	handle("POST", "/emailVerifications/signin", i.signIn)
	session("GET", "/session", i.sessionCheck)
	handle("POST", "/refresh", i.refresh)
	session("POST", "/revoke", i.revoke)

	session("POST", "/deviceRegistration", i.registerDevice)
	session("GET", "/deviceRegistrations", i.listDevices)
	session("DELETE", "/deviceRegistrations", i.deleteAllDevices)
	session("DELETE", "/deviceRegistrations/{id}", i.deleteDevice)

	session("GET", "/users/mfa", i.listMFA)
	session("GET", "/users/mfa/register/totp", i.beginTOTP)
	session("POST", "/users/mfa/register/totp", i.finishTOTP)
	session("DELETE", "/users/mfa/{id}", i.deleteMFA)

	session("GET", "/users/mfa/recovery", i.listRecoveryCodes)
	session("POST", "/users/mfa/recovery", i.renewRecoveryCodes)
	session("GET", "/users/passkeys", i.listPasskeys)
	session("GET", "/users/passkeys/register", i.beginPasskey)
	session("POST", "/users/passkeys/register", i.finishPasskey)
	session("GET", "/users/passkeys/authenticate", i.beginPasskeyAuth)
	session("DELETE", "/users/passkeys", i.deletePasskey)

	handle("POST", "/smsVerifications/create", i.createSMSVerification)
	handle("POST", "/smsVerifications/signin", i.signInBySMS)
	handle("POST", "/providers/{providerType}/initAuth", i.beginSocial)
	mux.HandleFunc("GET "+i.Prefix()+"/providers/{providerType}/redirect", i.returnFromSocial)
	handle("POST", "/providers/{providerType}/signIn", i.signInBySocial)
	handle("GET", "/nonce", i.getNonce)
	handle("POST", "/verify", i.signInByWallet)
	handle("POST", "/externalAuth/signin", i.signInExternally)
	handle("POST", "/mfaTokens/introspect", i.introspect)

	session("POST", "/stepUp/check", i.stepUpCheck)
	session("POST", "/smsVerifications/verify", i.verifySMS)
	session("POST", "/wallets/verify", i.stepUpByWallet)
	session("POST", "/providers/{providerType}/verify", i.verifySocial)
	session("POST", "/externalAuth/verify", i.stepUpExternally)
	session("POST", "/users/mfa/auth/passkey", i.stepUpByPasskey)
	session("POST", "/users/mfa/auth/recovery", i.stepUpByRecoveryCode)
	session("POST", "/users/mfa/auth/totp", i.stepUpByTOTP)
	session("POST", "/emailVerifications/verify", i.verifyEmail)
	return mux
}
