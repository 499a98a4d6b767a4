package token

import (
	"context"
	"crypto/sha256"
	_ "crypto/sha512" // RS384, RS512, ES384 and ES512 look their hash up by name
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Purpose says what a token is good for. A Verifier accepts tokens of one purpose only; the zero value is none.
type Purpose uint8

// The purposes.
const (
	_ Purpose = iota
	// Session is the base session token. It must have sub and exp. A token that says singleUse, true or false, or that has
	// an elevated scope and no session scope beside it, is not a session.
	Session
	// Elevated is the elevated access token. It must have sub, iat, exp and scopes, and no session scope among them.
	Elevated
	// MFA is the old action-based token. It must say singleUse, true or false, which no session does, and have no scopes,
	// which every elevated token has: otherwise one token could be spent as two. iat and exp are optional.
	MFA
)

// Limits of Config.
const (
	MaxLeeway               = time.Minute
	DefaultLeeway           = 10 * time.Second // for configurations that name none; Config does not apply it by itself
	DefaultElevatedLifetime = 10 * time.Minute
	DefaultCacheSize        = 4096
)

// Issuer is one issuer of one environment, with its own keys.
type Issuer struct {
	// Environment for which the issuer speaks; "" takes it from the claim environment_id. A token that names another is
	// invalid.
	Environment string
	// Issuer is the set of iss values, compared letter by letter. Required; no two Issuers may share one.
	Issuer []string
	// Audience is the set of which aud must contain one, compared letter by letter. Required.
	Audience []string
	// Algorithms are the accepted signature algorithms, from Algorithms(). Required.
	Algorithms []string
	// Types are the accepted values of the header typ, compared letter by letter; "" accepts a token without one. Nil
	// means "JWT".
	Types []string
	// Keys verify this issuer's tokens and no other's. Required; two Issuers of one Verifier may not share them.
	Keys *Keys
}

// Config says which tokens a Verifier accepts.
type Config struct {
	Purpose Purpose
	Issuers []Issuer
	// Leeway is how far the issuer's clock may differ from ours, at most MaxLeeway; zero is none.
	Leeway time.Duration
	// MaxLifetime caps exp - iat, with Leeway on top; a token that lacks one of the two is then invalid. Zero sets no cap,
	// except for Elevated, where it means DefaultElevatedLifetime.
	MaxLifetime time.Duration
	// RequireJTI refuses tokens without jti.
	RequireJTI bool
	// SessionScopes are the words that only session tokens carry, ElevatedScopes those that only elevated ones do. Empty
	// means DefaultSessionScopes and DefaultElevatedScopes. They may not overlap.
	SessionScopes  []string
	ElevatedScopes []string
	// CacheSize is the number of verified tokens that are remembered; zero means DefaultCacheSize, negative none.
	CacheSize int
	// Now is the clock. Required.
	Now func() time.Time
}

// Verifier proves tokens of one purpose. It is safe for concurrent use. The zero value accepts nothing.
type Verifier struct {
	purpose     Purpose
	issuers     map[string]*issuer // by iss
	leeway      time.Duration
	maxLifetime time.Duration
	requireJTI  bool
	session     map[string]bool
	elevated    map[string]bool
	cache       *cache
	now         func() time.Time
}

// issuer is the compiled form of Issuer.
type issuer struct {
	environment string
	audience    []string
	algorithms  []string
	types       []string
	keys        *Keys
	parser      *jwt.Parser
}

// New checks the configuration, all faults at once, and makes a Verifier. It fetches no keys.
func New(c Config) (*Verifier, error) {
	c.defaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("token: config: %w", err)
	}
	cache, err := newCache(c.CacheSize)
	if err != nil {
		return nil, fmt.Errorf("token: config: cache: %w", err)
	}
	v := &Verifier{
		purpose: c.Purpose, issuers: make(map[string]*issuer), leeway: c.Leeway, maxLifetime: c.MaxLifetime,
		requireJTI: c.RequireJTI, session: setOf(c.SessionScopes), elevated: setOf(c.ElevatedScopes), cache: cache, now: c.Now,
	}
	for _, i := range c.Issuers {
		compiled := compile(i)
		for _, name := range i.Issuer {
			v.issuers[name] = compiled
		}
	}
	return v, nil
}

func compile(i Issuer) *issuer {
	types := i.Types
	if types == nil {
		types = []string{"JWT"}
	}
	algorithms := slices.Clone(i.Algorithms)
	return &issuer{
		environment: i.Environment, audience: slices.Clone(i.Audience), algorithms: algorithms, types: slices.Clone(types), keys: i.Keys,
		parser: jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithValidMethods(algorithms), jwt.WithoutClaimsValidation()),
	}
}

func (c *Config) defaults() {
	if len(c.SessionScopes) == 0 {
		c.SessionScopes = DefaultSessionScopes()
	}
	if len(c.ElevatedScopes) == 0 {
		c.ElevatedScopes = DefaultElevatedScopes()
	}
	if c.Purpose == Elevated && c.MaxLifetime == 0 {
		c.MaxLifetime = DefaultElevatedLifetime
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultCacheSize
	}
}

func (c *Config) check() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Purpose < Session || c.Purpose > MFA, "no purpose")
	fault(c.Now == nil, "no clock")
	fault(c.Leeway < 0 || c.Leeway > MaxLeeway, "leeway %s is not within 0 and %s", c.Leeway, MaxLeeway)
	fault(c.MaxLifetime < 0, "max lifetime %s is negative", c.MaxLifetime)
	fault(len(c.Issuers) == 0, "no issuer")
	for _, s := range c.SessionScopes {
		fault(slices.Contains(c.ElevatedScopes, s), "scope %q is both a session and an elevated scope", s)
	}
	names, keys := map[string]bool{}, map[*Keys]bool{}
	for n, i := range c.Issuers {
		fault(i.Keys != nil && keys[i.Keys], "issuer %d: shares its keys with another issuer", n)
		keys[i.Keys] = true
		for _, name := range i.Issuer {
			fault(names[name], "issuer %d: %q is named twice; a token could not tell which one it is from", n, name)
			names[name] = true
		}
		if err := i.check(); err != nil {
			errs = append(errs, fmt.Errorf("issuer %d: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

func (i *Issuer) check() error {
	var errs []error
	if len(i.Issuer) == 0 || slices.Contains(i.Issuer, "") {
		errs = append(errs, errors.New("no issuer name, or an empty one"))
	}
	if len(i.Audience) == 0 || slices.Contains(i.Audience, "") {
		errs = append(errs, errors.New("no audience, or an empty one"))
	}
	if i.Keys == nil {
		errs = append(errs, errors.New("no keys"))
	}
	if len(i.Algorithms) == 0 {
		errs = append(errs, errors.New("no algorithms"))
	}
	if i.Types != nil && len(i.Types) == 0 {
		errs = append(errs, errors.New("no types"))
	}
	for _, a := range i.Algorithms {
		if kindOf(a) == noKey {
			errs = append(errs, fmt.Errorf("algorithm %q is not one of %v", a, Algorithms()))
		}
	}
	return errors.Join(errs...)
}

func setOf(words []string) map[string]bool {
	set := make(map[string]bool, len(words))
	for _, w := range words {
		set[w] = true
	}
	return set
}

// Verify proves one compact token: form, header, signature by the key of its issuer, issuer, audience, times and what its
// purpose demands. Its errors are ErrMalformed, ErrInvalid, ErrUnavailable (wrapped, with a text that names the check and
// nothing of the token) and *ExpiredError, which is returned only when nothing but the time was wrong. ctx bounds the wait
// for keys that must be fetched first; a ctx that ends while waiting is ErrUnavailable.
//
// A token that was proven before is answered from memory. Its times are judged anew each time, and it is proven anew when
// a key was removed or the keys are no longer believed.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Claims, error) {
	if v == nil || v.issuers == nil {
		return nil, ErrUnavailable
	}
	if len(raw) > MaxBytes { // before hashing it
		return nil, fmt.Errorf("%w: too long", ErrMalformed)
	}
	now := v.now()
	if v.cache == nil {
		p, err := v.prove(ctx, raw, now)
		return p.claims, err
	}
	id := digest(raw)
	if claims := v.cache.find(id, now, v.leeway); claims != nil {
		if err := v.started(claims, now); err != nil { // the clock was set back
			return nil, err
		}
		return claims, nil
	}
	p, err := v.prove(ctx, raw, now)
	if err != nil {
		return nil, err
	}
	v.cache.add(id, p)
	return p.claims, nil
}

// digest is SHA-256 of a text, without an allocation for all but the longest tokens.
func digest(raw string) [sha256.Size]byte {
	var text [4 << 10]byte
	if len(raw) > len(text) {
		return sha256.Sum256([]byte(raw))
	}
	return sha256.Sum256(text[:copy(text[:], raw)])
}

// proven is a token that passed, and what it hangs on.
type proven struct {
	claims     *Claims
	keys       *Keys
	generation uint64
}

// prove does all of it, cheap before dear (standards.md section 3); that a token is expired is said last.
func (v *Verifier) prove(ctx context.Context, raw string, now time.Time) (proven, error) {
	u, err := parse(raw)
	if err != nil {
		return proven{}, err
	}
	is := v.issuers[u.claims.Issuer]
	switch {
	case is == nil:
		return proven{}, invalid("issuer is not accepted")
	case !slices.Contains(is.algorithms, u.alg):
		return proven{}, invalid("algorithm is not accepted")
	case !slices.Contains(is.types, u.typ):
		return proven{}, invalid("type is not accepted")
	}
	k, generation, err := is.keys.lookup(ctx, u.kid, u.alg)
	if err != nil {
		return proven{}, err
	}
	if err := is.checkSignature(raw, u.alg, k); err != nil {
		return proven{}, err
	}
	if err := v.judge(is, u, now); err != nil {
		return proven{}, err
	}
	return proven{claims: u.claims, keys: is.keys, generation: generation}, nil
}

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

// unread keeps golang-jwt from reading the payload, which parse has read: one text, one reading.
type unread struct{ jwt.Claims }

func (*unread) UnmarshalJSON([]byte) error { return nil }

// checkSignature has golang-jwt verify the token. Its own reading of the header must agree with ours; its error text may
// hold the right signature (CVE-2019-7644) and is dropped.
func (i *issuer) checkSignature(raw, algorithm string, k *key) error {
	t, err := i.parser.ParseWithClaims(raw, &unread{}, func(t *jwt.Token) (any, error) {
		if t.Method.Alg() != algorithm {
			return nil, ErrInvalid
		}
		return k.public, nil
	})
	if err != nil || !t.Valid {
		return invalid("signature")
	}
	return nil
}

// judge checks the claims of a token whose signature is good.
func (v *Verifier) judge(is *issuer, u *unverified, now time.Time) error {
	c := u.claims
	switch {
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(is.audience, a) }):
		return invalid("audience is not accepted")
	case is.environment != "" && c.Environment != "" && c.Environment != is.environment:
		return invalid("environment is not the issuer's")
	case v.requireJTI && c.ID == "":
		return invalid("jti is missing")
	case !v.lifetimeFits(c):
		return invalid("lifetime is too long or unknown")
	}
	if is.environment != "" {
		c.Environment = is.environment
	}
	if err := v.suits(u); err != nil {
		return err
	}
	if err := v.started(c, now); err != nil {
		return err
	}
	if expired(c, now, v.leeway) {
		return &ExpiredError{Claims: c}
	}
	return nil
}

// suits holds the rules of the purpose, by which tokens of one key and type are told apart (design.md section 10, item 7).
func (v *Verifier) suits(u *unverified) error {
	c := u.claims
	isSessionWord := func(s string) bool { return v.session[s] }
	isElevatedWord := func(s string) bool { return v.elevated[s] }
	switch v.purpose {
	case Session:
		switch {
		case c.Subject == "", c.Expires.IsZero():
			return invalid("sub or exp is missing")
		case u.saysSingleUse:
			return invalid("not a session token: it says singleUse")
		case slices.ContainsFunc(c.Scopes, isElevatedWord) && !slices.ContainsFunc(c.Scopes, isSessionWord):
			return invalid("not a session token: its scopes are elevated ones")
		}
	case Elevated:
		switch {
		case c.Subject == "", c.Expires.IsZero(), c.IssuedAt.IsZero():
			return invalid("sub, iat or exp is missing")
		case len(c.Scopes) == 0:
			return invalid("scope is missing")
		case slices.ContainsFunc(c.Scopes, isSessionWord):
			return invalid("not an elevated token: it has a session scope")
		case slices.ContainsFunc(c.Scopes, func(s string) bool { return !isScopeToken(s) }):
			return invalid("scope has a character that no scope has")
		}
	case MFA:
		switch {
		case len(c.Scopes) > 0:
			return invalid("not an MFA token: it has scopes")
		case !u.saysSingleUse:
			return invalid("not an MFA token: it does not say singleUse")
		}
	default:
		return invalid("no purpose")
	}
	return nil
}

// isScopeToken follows RFC 6749 section 3.3. Session scopes may be custom words beyond it, elevated ones are quoted in
// challenges and headers.
func isScopeToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < 0x21 || b > 0x7e || b == '"' || b == '\\' {
			return false
		}
	}
	return s != ""
}

func (v *Verifier) lifetimeFits(c *Claims) bool {
	if v.maxLifetime == 0 {
		return true
	}
	return !c.IssuedAt.IsZero() && !c.Expires.IsZero() && c.Expires.Sub(c.IssuedAt) <= v.maxLifetime+v.leeway
}

// started refuses tokens from the future.
func (v *Verifier) started(c *Claims, now time.Time) error {
	if limit := now.Add(v.leeway); c.NotBefore.After(limit) || c.IssuedAt.After(limit) {
		return invalid("not valid yet")
	}
	return nil
}

// expired reports whether exp lies leeway or more in the past. A token without exp does not expire.
func expired(c *Claims, now time.Time, leeway time.Duration) bool {
	return !c.Expires.IsZero() && !now.Before(c.Expires.Add(leeway))
}
