package token

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stepward/stepward/internal/fetch"
)

// What became of one question to an introspection endpoint: the closed set of words that IntrospectionConfig.OnAnswer receives.
// FetchUnreachable, FetchStatus and FetchInvalid say that there was no answer.
const (
	IntrospectionActive   = "active"
	IntrospectionInactive = "inactive"
	// IntrospectionUnusable is an active token that is no MFA token of a user whom the answer names, or is over.
	IntrospectionUnusable = "unusable"
)

// IntrospectionOutcomes lists those words. The slice is the caller's.
func IntrospectionOutcomes() []string {
	return []string{IntrospectionActive, IntrospectionInactive, IntrospectionUnusable, FetchUnreachable, FetchStatus, FetchInvalid}
}

// maxAnswer bounds an introspection answer in bytes, maxAsking how many questions are under way at once: every one is caused by
// a client, who must not be able to drown the endpoint.
const (
	maxAnswer = 64 << 10
	maxAsking = 64
)

// IntrospectionConfig says who is asked about opaque MFA tokens (RFC 7662).
type IntrospectionConfig struct {
	// URL is the endpoint's: https, or http on loopback. Redirects are not followed and proxy variables not read. Required.
	URL string
	// Bearer authenticates us with a bearer token (RFC 6750 section 2.1), Basic as "client_id:client_secret" (RFC 6749 section
	// 2.3.1). At most one of them.
	Bearer, Basic string
	// Timeout bounds one question, from waiting for its turn to the last byte of the answer (3 s).
	Timeout time.Duration
	// Leeway, MaxLifetime and RequireJTI are those of Config.
	Leeway      time.Duration
	MaxLifetime time.Duration
	RequireJTI  bool
	// RootCAs verifies the endpoint's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// Now is the clock. Required.
	Now func() time.Time
	// Logger is told when questions begin to fail and when they are answered again; nil says nothing.
	Logger *slog.Logger
	// OnAnswer is called after every question that was not abandoned, with one of IntrospectionOutcomes. Nil is not called.
	OnAnswer func(outcome string, d time.Duration)
}

// Introspector proves MFA tokens by asking the backend that made them. Nothing is remembered: whether a token is still good may
// change between two requests. It is safe for concurrent use. The zero value accepts nothing.
type Introspector struct {
	config  IntrospectionConfig
	address string
	client  *http.Client
	rules   Verifier // its times only: it has no issuers
	asking  chan struct{}
	failing atomic.Bool
}

// NewIntrospector checks the configuration. It asks nothing.
func NewIntrospector(c IntrospectionConfig) (*Introspector, error) {
	c.Timeout = orDefault(c.Timeout, 3*time.Second)
	u, err := fetch.ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("token: introspection: url: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("token: introspection: %w", err)
	}
	return &Introspector{
		config: c, address: u.String(), client: fetch.NewClient(fetch.Config{
			What: "introspection", LoopbackOnly: u.Scheme == "http", Timeout: c.Timeout,
			TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs},
		}),
		rules:  Verifier{purpose: MFA, leeway: c.Leeway, maxLifetime: c.MaxLifetime},
		asking: make(chan struct{}, maxAsking),
	}, nil
}

func (c *IntrospectionConfig) check() error {
	id, secret, pair := strings.Cut(c.Basic, ":")
	switch {
	case c.Now == nil:
		return errors.New("no clock")
	case min(c.Timeout, c.MaxLifetime) < 0, c.Leeway < 0 || c.Leeway > MaxLeeway:
		return errors.New("a duration is negative, or the leeway too long")
	case c.Bearer != "" && c.Basic != "":
		return errors.New("want one of bearer and basic")
	case c.Bearer != "" && !isB64Token(c.Bearer):
		return errors.New("bearer: not a bearer token (RFC 6750 section 2.1)")
	case c.Basic != "" && (!pair || id == "" || secret == "" || hasControl(c.Basic)):
		return errors.New("basic: want client_id:client_secret on one line")
	}
	return nil
}

// Verify asks about one token. A text that cannot be one is ErrMalformed and not asked about; a token that is not active, belongs
// to nobody or is no MFA token is ErrInvalid; an endpoint that does not answer, answers with another status than 200 or not as
// RFC 7662 section 2.2 says is ErrUnavailable. The claims have no Issuer: a jti here is none of an issuer's.
func (i *Introspector) Verify(ctx context.Context, raw string) (*Claims, error) {
	if i == nil || i.client == nil {
		return nil, ErrUnavailable
	}
	id, err := identify(raw)
	if err != nil {
		return nil, err
	}
	began := i.config.Now()
	claims, err := i.ask(ctx, raw)
	if ctx.Err() != nil && err != nil {
		return nil, fmt.Errorf("%w: introspection: %w", ErrUnavailable, ctx.Err()) // the client left: that says nothing of the endpoint
	}
	outcome := IntrospectionInactive
	if claims != nil {
		claims.Input = id
		outcome, err = IntrospectionActive, i.judge(claims)
	}
	var failed *fetch.Error
	switch {
	case errors.As(err, &failed):
		outcome, err = failed.Outcome, fmt.Errorf("%w: introspection: %w", ErrUnavailable, err)
	case err != nil:
		outcome = IntrospectionUnusable
	case claims == nil:
		err = invalid("not active")
	}
	i.report(outcome, failed, i.config.Now().Sub(began))
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// judge checks what an active token's answer says. That it is a user's, in which environment, is the caller's to compare.
func (i *Introspector) judge(c *Claims) error {
	now := i.config.Now()
	switch {
	case c.Subject == "":
		return invalid("sub is missing")
	case i.config.RequireJTI && c.ID == "":
		return invalid("jti is missing")
	case !i.rules.lifetimeFits(c):
		return invalid("lifetime is too long or unknown")
	case len(c.Scopes) > 0:
		return invalid("not an MFA token: it has scopes")
	case !isMFAType(c.Members["token_type"]):
		return invalid("not an MFA token: it has another token_type")
	}
	if err := i.rules.started(c, now); err != nil {
		return err
	}
	if expired(c, now, i.config.Leeway) {
		return &ExpiredError{Claims: c}
	}
	return nil
}

// tokenType is our hint, and the only token_type of an answer that is accepted. Without a hint that it knows, an endpoint must
// look among all its tokens (RFC 7662 section 2.1): an access token of the same user would be active too.
const tokenType = "mfa_token"

func isMFAType(v any) bool {
	s, isText := v.(string)
	return v == nil || isText && strings.EqualFold(s, tokenType)
}

// report tells of one question; the log hears of the change from answers to failures and back.
func (i *Introspector) report(outcome string, failure *fetch.Error, took time.Duration) {
	if i.config.OnAnswer != nil {
		i.config.OnAnswer(outcome, took)
	}
	failed := failure != nil
	if was := i.failing.Swap(failed); was == failed || i.config.Logger == nil {
		return
	}
	if failed {
		i.config.Logger.Warn("MFA tokens cannot be checked", "at", fetch.WithoutQuery(i.address), "error", failure)
		return
	}
	i.config.Logger.Info("MFA tokens are checked again", "at", fetch.WithoutQuery(i.address))
}

// ask returns nil claims for a token that is not active. Its errors are *fetch.Error.
func (i *Introspector) ask(ctx context.Context, raw string) (*Claims, error) {
	ctx, cancel := context.WithTimeout(ctx, i.config.Timeout)
	defer cancel()
	select {
	case i.asking <- struct{}{}:
		defer func() { <-i.asking }()
	case <-ctx.Done():
		return nil, &fetch.Error{Outcome: fetch.Unreachable, Err: fmt.Errorf("%d questions are under way: %w", maxAsking, ctx.Err())}
	}
	form := url.Values{"token": {raw}, "token_type_hint": {tokenType}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &fetch.Error{Outcome: fetch.Unreachable, Err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	i.authenticate(req)
	text, err := fetch.Do(i.client, req, maxAnswer) // RFC 7662 section 2.2: a token that is not known is 200 too
	if err != nil {
		return nil, err
	}
	claims, err := readAnswer(text)
	if err != nil {
		return nil, &fetch.Error{Outcome: fetch.Invalid, Err: fmt.Errorf("answer: %w", err)}
	}
	return claims, nil
}

func (i *Introspector) authenticate(req *http.Request) {
	switch {
	case i.config.Bearer != "":
		req.Header.Set("Authorization", "Bearer "+i.config.Bearer)
	case i.config.Basic != "":
		id, secret, _ := strings.Cut(i.config.Basic, ":")
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
}

var answerNames = byFold("active", "sub", "exp", "nbf", "iat", "jti", "scope", "token_type", "environment_id")

// readAnswer reads an introspection answer (RFC 7662 section 2.2), and environment_id as in Dynamic's JWTs. It returns nil for a
// token that is not active, whatever else is said of it.
func readAnswer(text []byte) (*Claims, error) {
	members, err := decodeObject(text)
	if err != nil {
		return nil, err
	}
	if err := exactNames(members, answerNames); err != nil {
		return nil, err
	}
	active, isBoolean := members["active"].(bool)
	if !isBoolean {
		return nil, errors.New("active is neither true nor false")
	}
	if !active {
		return nil, nil //nolint:nilnil // not active is a good answer
	}
	r := reader{members: members}
	c := &Claims{
		Subject:     r.text("sub", optional, maxSubject),
		ID:          r.text("jti", optional, maxJTI),
		Environment: r.text("environment_id", optional, maxName),
		Scopes:      r.scopes("scope"),
		IssuedAt:    r.date("iat"),
		NotBefore:   r.date("nbf"),
		Expires:     r.date("exp"),
		Members:     members,
	}
	return c, r.err
}

// IsJWT reports whether a token is written as a signed JWT: three parts, the first of which is a JSON object in base64url. The
// header decides, because the signature covers its text: a client cannot spell it in another way.
func IsJWT(raw string) bool {
	header, rest, _ := strings.Cut(raw, ".")
	if strings.Count(rest, ".") != 1 {
		return false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "="))
	return err == nil && strings.HasPrefix(strings.TrimLeft(string(text), " \t\r\n"), "{")
}

// identify checks the form of a token that somebody else reads, and returns what it is remembered by if it has no jti.
//
// The tempting identity, a hash of the text, is one for each spelling, and the endpoint may accept several: MySQL's default
// collations ignore case, PostgreSQL's uuid ignores hyphens too, base64 has two alphabets and padding. So only letters, in lower
// case, and digits count. Of a JWT it is the signing input, as everywhere: its signature can be spelled anew.
func identify(raw string) (id [sha256.Size]byte, err error) {
	switch {
	case len(raw) > MaxBytes:
		return id, fmt.Errorf("%w: too long", ErrMalformed)
	case !isB64Token(raw):
		return id, fmt.Errorf("%w: byte outside the alphabet", ErrMalformed)
	case IsJWT(raw):
		return identifyJWT(raw)
	}
	folded := strings.Map(func(c rune) rune {
		switch {
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		}
		return -1
	}, raw)
	if folded == "" {
		return id, fmt.Errorf("%w: neither letters nor digits", ErrMalformed)
	}
	return sha256.Sum256([]byte(folded)), nil
}

// identifyJWT also holds JWTs to the rules of purpose MFA as far as they can be read unproven, so that a session or an elevated
// token, which the endpoint may call active, is never taken for one.
func identifyJWT(raw string) (id [sha256.Size]byte, err error) {
	_, payload, err := segments(raw)
	if err != nil {
		return id, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	members, err := decodeObject(payload)
	if err == nil {
		err = exactNames(members, payloadNames)
	}
	if err != nil {
		return id, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
	}
	u := unverified{claims: &Claims{}}
	if scope, there := members["scope"]; there && scope != "" {
		u.claims.Scopes = []string{""}
	}
	_, u.saysSingleUse = members["singleUse"]
	rules := Verifier{purpose: MFA}
	if err := rules.suits(&u); err != nil {
		return id, err
	}
	return sha256.Sum256([]byte(raw[:strings.LastIndexByte(raw, '.')])), nil
}

// isB64Token follows b64token of RFC 6750 section 2.1.
func isB64Token(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := range len(body) {
		if b := body[i]; !isTokenByte(b) && b != '~' && b != '+' && b != '/' {
			return false
		}
	}
	return body != ""
}
