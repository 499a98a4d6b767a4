package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/admin"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/metrics"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/proxy"
	"github.com/stepward/stepward/token"
)

// outputs are where a service writes: decisions to stdout where the configuration says so, talk to stderr.
type outputs struct{ stdout, stderr io.Writer }

// newService builds everything that the configuration names and opens the listeners. What it made is taken back on an error.
func newService(ctx context.Context, cfg *config.Config, out outputs) (_ *service, err error) {
	s := &service{config: cfg, log: newLogger(cfg.Log, out.stderr), metrics: metrics.New(version)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.follow(); err != nil {
		return nil, err
	}
	if err := s.openPolicy(ctx); err != nil {
		return nil, err
	}
	verify, err := s.openKeys()
	if err != nil {
		return nil, err
	}
	// The addresses come before the files: a port that is taken is the likelier fault, and leaves nothing behind.
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.openDecisions(out); err != nil {
		return nil, err
	}
	if err := s.openLedger(ctx); err != nil {
		return nil, err
	}
	g, err := s.newGate(verify)
	if err != nil {
		return nil, err
	}
	if s.proxy, err = s.newProxy(g); err != nil {
		return nil, err
	}
	s.registerGauges(verify)
	return s, nil
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	options := &slog.HandlerOptions{Level: level[c.Level]}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func (s *service) openPolicy(ctx context.Context) (err error) {
	c := s.config.Policy
	s.policy, err = policy.New(ctx, policy.Config{
		FS: policyFiles(c.Path), CacheSize: c.CacheSize, DisableCache: c.CacheSize == 0, EvalTimeout: c.EvalTimeout,
		Scopes: s.config.Elevated.Scopes, OnReload: s.policyReloaded, OnCache: s.metrics.RequirementCache,
	})
	if err != nil {
		return inFolder(c.Path, err)
	}
	s.metrics.PolicyReload(nil, time.Now())
	return nil
}

// verifiers prove one kind of token each. mfa is nil where no issuer signs such tokens, opaque where nobody is asked about them.
type verifiers struct {
	session, elevated, mfa *token.Verifier
	opaque                 *token.Introspector
}

func (s *service) openKeys() (v verifiers, err error) {
	c := s.config
	ring := newKeyring(c.JWKS, s.log, s.metrics.JWKS)
	common := token.Config{Leeway: c.Leeway, SessionScopes: c.Session.Scopes, ElevatedScopes: c.Elevated.Scopes, Now: time.Now}
	open := func(section string, purpose token.Purpose, from *config.Verifier, issuers []config.Issuer, lifetime time.Duration) *token.Verifier {
		if err != nil || len(issuers) == 0 {
			return nil
		}
		tc := common
		tc.Purpose, tc.MaxLifetime, tc.RequireJTI = purpose, lifetime, from.RequireJTI
		var verifier *token.Verifier
		if tc.Issuers, err = ring.issuers(issuers); err == nil {
			verifier, err = token.New(tc)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", section, err)
		}
		return verifier
	}
	v.session = open("session", token.Session, &c.Session.Verifier, c.SessionIssuers(), c.Session.MaxLifetime)
	v.elevated = open("elevated", token.Elevated, &c.Elevated.Verifier, c.ElevatedIssuers(), c.Elevated.MaxLifetime)
	v.mfa = open("mfa", token.MFA, &c.MFA.Verifier, c.MFAIssuers(), c.MFA.MaxLifetime)
	s.keys = ring.sources
	if err == nil && c.MFA.Introspection.URL != nil {
		if v.opaque, err = s.openIntrospection(); err != nil {
			err = fmt.Errorf("mfa.introspection: %w", err)
		}
	}
	return v, err
}

func (s *service) listen() (err error) {
	c := s.config
	door := listen.Config{
		Field: "listen", Address: c.Listen, Handler: http.HandlerFunc(s.serveDoor), Logger: s.log,
		ReadHeaderTimeout: c.Limits.ReadHeaderTimeout, IdleTimeout: c.Limits.IdleTimeout, ReadIdle: c.Limits.BodyIdle,
		WriteIdle: c.Limits.WriteIdle, MaxHeaderBytes: int(c.Limits.MaxHeader), MaxConns: c.Limits.MaxConnections,
	}
	if c.TLS.CertFile != "" {
		door.TLS = &listen.TLSConfig{
			CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile, MinVersion: tls.VersionTLS12,
		}
		if c.TLS.MinVersion == "TLS1.3" {
			door.TLS.MinVersion = tls.VersionTLS13
		}
	}
	if s.door, err = listen.New(door); err != nil {
		return err
	}
	s.admin, err = listen.New(listen.Config{
		Field: "admin.listen", Address: c.Admin.Listen, Logger: s.log,
		Handler: admin.Handler(admin.Config{Checks: s.checks, Metrics: s.metrics.Handler()}),
	})
	return err
}

func (s *service) openDecisions(out outputs) (err error) {
	c := s.config.DecisionLog
	var key []byte
	if c.KeyFile != "" {
		if key, err = os.ReadFile(c.KeyFile); err != nil {
			return fmt.Errorf("decision_log.key_file: %w", err)
		}
	}
	made := c.To
	if _, err := os.Stat(c.To); err == nil || !strings.ContainsRune(c.To, os.PathSeparator) {
		made = ""
	}
	s.decisions, err = decisionlog.Open(decisionlog.Config{
		To: c.To, Blocking: c.Blocking, Buffer: c.Buffer, Key: key, Dropped: s.metrics.DecisionLogDropped.Inc,
		Log: s.log, Stdout: out.stdout, Stderr: out.stderr,
	})
	if err == nil {
		s.madeLog = made
	}
	return err
}

func (s *service) openLedger(ctx context.Context) error {
	c := s.config
	made := c.Ledger.Path
	if _, err := os.Stat(made); err == nil {
		made = ""
	}
	store, err := openStore(ctx, c, s.log)
	if err != nil {
		return err
	}
	s.ledger, s.madeLedger = meteredStore{store, s.metrics.Ledger}, made
	return nil
}

func (s *service) newGate(v verifiers) (*gate.Gate, error) {
	c := s.config
	gc := gate.Config{
		Policy:  s.policy.Snapshot,
		Session: gate.SessionConfig{Verify: v.session.Verify, Header: c.Session.Header, Cookie: c.Session.Cookie},
		Elevated: gate.TokenConfig{
			Verify: v.elevated.Verify, Header: c.Elevated.Header,
		},
		MFA: gate.MFAConfig{Header: c.MFA.Header, Remember: c.MFA.Remember, EnrolledClaim: c.MFA.EnrolledClaim},
		Environment: gate.EnvironmentConfig{
			Fixed: c.Environment.Fixed, Param: c.Environment.PathParam, Header: c.Environment.Header,
		},
		Client: gate.ClientConfig{
			APIVersionHeader: c.Client.APIVersionHeader, SDKVersionHeader: c.Client.SDKVersionHeader,
			DenyUndeclared: c.Client.Undeclared == "deny",
		},
		Device: gate.DeviceConfig{
			RegisteredScope: c.Device.RegisteredScope, UnregisteredScope: c.Device.UnregisteredScope,
			AdditionalAuthScope: c.Device.AdditionalAuthScope,
		},
		Ledger: s.ledger, LedgerTimeout: c.LedgerOptions.ReserveTimeout, Leeway: c.Leeway,
		DangerouslyPassUnmatched: c.UnmatchedRoutes == "dangerously_pass",
		Record:                   s.decisions.Record, RecordIntent: c.DecisionLog.Blocking, Hash: s.decisions.Hash,
		Observe: s.observe, Log: s.log,
	}
	gc.MFA.Verify = v.proveMFA()
	return gate.New(gc)
}

// observe counts one decision.
func (s *service) observe(v *gate.Verdict, took time.Duration) {
	s.metrics.Decision(v.Outcome(), string(v.Reason), v.Operation(), took)
}

func (s *service) newProxy(g *gate.Gate) (*proxy.Proxy, error) {
	c := s.config
	identity := proxy.Identity{
		Subject: c.IdentityHeaders.Subject, Scopes: c.IdentityHeaders.Scopes,
		DecisionID: c.IdentityHeaders.DecisionID, Environment: c.IdentityHeaders.Environment,
	}
	rules, err := framing.New(framing.Config{
		Tokens:          []string{c.Session.Header, c.Elevated.Header, c.MFA.Header},
		Sensitive:       []string{c.Client.APIVersionHeader, c.Client.SDKVersionHeader, c.Environment.Header},
		Identity:        []string{identity.Subject, identity.Scopes, identity.DecisionID, identity.Environment},
		AllowUnderscore: c.UnderscoreHeaders,
	})
	if err != nil {
		return nil, err
	}
	words, err := s.newChallenge()
	if err != nil {
		return nil, err
	}
	upstreamTLS, err := upstreamTLS(c.UpstreamTLS)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Config{
		Gate: g, Challenge: words, Rules: rules,
		Upstream: c.Upstream, UpstreamTLS: upstreamTLS,
		DialTimeout: c.Limits.UpstreamDial, ResponseHeaderTimeout: c.Limits.UpstreamResponseHeader,
		Credentials: proxy.Credentials{
			SessionHeader: c.Session.Header, SessionCookie: c.Session.Cookie, ElevatedHeader: c.Elevated.Header, MFAHeader: c.MFA.Header,
			ForwardSession: c.Session.Forward, ForwardElevated: c.Elevated.Forward, ForwardMFA: c.MFA.Forward,
		},
		Identity: identity, TrustedProxies: c.TrustedProxies,
		MaxBody: int64(c.Limits.MaxBody), JudgedBody: c.Limits.BodyIdle, Stream: c.Limits.Stream,
		Failed: s.metrics.UpstreamFailure, Log: s.log,
	})
}

func (s *service) newChallenge() (*challenge.Writer, error) {
	c := s.config
	cc := challenge.Config{
		Profile: challenge.Profile(c.Challenge.Profile), Realm: c.Challenge.Realm, TypeBase: c.Challenge.TypeBase, Domain: c.Challenge.Domain,
		CORS:      challenge.CORS{AllowedOrigins: c.Challenge.CORS.AllowedOrigins, AllowCredentials: c.Challenge.CORS.AllowCredentials},
		ACRValues: c.Challenge.ACRValues, Methods: c.Challenge.Methods, RetryAfter: c.Challenge.RetryAfter,
		TokenHeader: c.Elevated.Header, MFAHeader: c.MFA.Header, SessionScope: c.Device.RegisteredScope,
		Vary: []string{c.Elevated.Header, c.MFA.Header, c.Client.SDKVersionHeader, c.Client.APIVersionHeader},
	}
	if c.Challenge.VerifyURL != nil {
		cc.VerifyURL = c.Challenge.VerifyURL.String()
	}
	if c.Challenge.ResourceMetadata != nil {
		cc.ResourceMetadata = c.Challenge.ResourceMetadata.String()
	}
	if c.Session.Cookie != "" {
		cc.Vary = append(cc.Vary, "Cookie")
	}
	return challenge.New(cc)
}

// upstreamTLS is how an https backend is verified; nil where the configuration adds nothing to the system's roots.
func upstreamTLS(c config.UpstreamTLS) (*tls.Config, error) {
	if cmp.Or(c.CAFile, c.CertFile, c.ServerName) == "" {
		return nil, nil //nolint:nilnil // nothing to add is a good answer
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	var err error
	if t.RootCAs, err = authorities(c.CAFile); err != nil {
		return nil, fmt.Errorf("upstream_tls.ca_file: %w", err)
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("upstream_tls.cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// authorities reads PEM certificates; nil without a file, which stands for the system's.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the system's are a good answer
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}
