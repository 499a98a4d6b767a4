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

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/admin"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/metrics"
	"github.com/stepward/stepward/internal/standing"
	"github.com/stepward/stepward/policy"
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
	if err := s.openSettings(); err != nil {
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
	if err := s.openStanding(); err != nil {
		return nil, err
	}
	g, err := s.newGate(verify)
	if err != nil {
		return nil, err
	}
	if err := s.openDoors(g); err != nil {
		return nil, err
	}
	s.registerGauges(verify)
	s.registerSettings()
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

// policyConfig is how the policy is loaded, by run and check alike.
func policyConfig(cfg *config.Config) policy.Config {
	c := cfg.Policy
	return policy.Config{
		FS: policyFiles(c.Path), CacheSize: c.CacheSize, DisableCache: c.CacheSize == 0, EvalTimeout: c.EvalTimeout, Scopes: cfg.Elevated.Scopes,
	}
}

func (s *service) openPolicy(ctx context.Context) (err error) {
	c := policyConfig(s.config)
	c.Synced, c.OnReload, c.OnCache = s.knownSettings(), s.policyReloaded, s.metrics.RequirementCache
	s.policy, err = policy.New(ctx, c)
	if err != nil {
		return inFolder(s.config.Policy.Path, err)
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

// listen opens the addresses. What answers there is made later, by openDoors.
func (s *service) listen() (err error) {
	c := s.config
	if c.Upstream != nil {
		if s.door, err = listen.New(s.serverConfig("listen", c.Listen, c.TLS, s.serveDoor)); err != nil {
			return err
		}
		s.certificates = append(s.certificates, s.door)
	}
	if c.ForwardAuth.Listen != "" {
		l, err := listen.New(s.serverConfig("forward_auth.listen", c.ForwardAuth.Listen, c.ForwardAuth.TLS, s.serveForwardAuth))
		if err != nil {
			return err
		}
		s.asked, s.certificates, s.forwardAuth = append(s.asked, l), append(s.certificates, l), l.Addr()
	}
	if c.ExtAuthz.Listen != "" {
		if s.extAuthzListener, err = listen.Open("ext_authz.listen", c.ExtAuthz.Listen, c.Limits.MaxConnections); err != nil {
			return err
		}
		s.extAuthz = s.extAuthzListener.Addr()
	}
	s.admin, err = listen.New(listen.Config{
		Field: "admin.listen", Address: c.Admin.Listen, Logger: s.log,
		Handler: admin.Handler(admin.Config{Checks: s.checks, Metrics: s.metrics.Handler()}),
	})
	return err
}

func (s *service) serverConfig(field, address string, t config.TLS, h http.HandlerFunc) listen.Config {
	c := s.config
	return listen.Config{
		Field: field, Address: address, TLS: serverTLS(t), Handler: h, Logger: s.log,
		ReadHeaderTimeout: c.Limits.ReadHeaderTimeout, IdleTimeout: c.Limits.IdleTimeout, ReadIdle: c.Limits.BodyIdle,
		WriteIdle: c.Limits.WriteIdle, MaxHeaderBytes: int(c.Limits.MaxHeader), MaxConns: c.Limits.MaxConnections,
	}
}

// serverTLS is nil for a server that speaks in the clear.
func serverTLS(t config.TLS) *listen.TLSConfig {
	if t.CertFile == "" {
		return nil
	}
	files := &listen.TLSConfig{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile, MinVersion: tls.VersionTLS12}
	if t.MinVersion == "TLS1.3" {
		files.MinVersion = tls.VersionTLS13
	}
	return files
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

// openStanding makes what asks the backend about sessions, where the configuration wants that.
func (s *service) openStanding() error {
	c := s.config.Session
	if c.Check.Path == "" {
		return nil
	}
	tls, err := upstreamTLS(s.config.UpstreamTLS)
	if err != nil {
		return err
	}
	s.standing, err = standing.New(standing.Config{
		Backend: s.config.Upstream, TLS: tls, Path: c.Check.Path, Header: c.Header, Cookie: c.Cookie,
		Timeout: c.Check.Timeout, Cache: c.Check.Cache, Asked: s.metrics.SessionCheck,
	})
	return err
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
			SDKVersionClaim: c.Client.SDKVersionClaim, WalletSDKVersionHeader: c.Client.WalletSDKVersionHeader,
			DenyUndeclared: c.Client.Undeclared == "deny",
		},
		Device: gate.DeviceConfig{
			RegisteredScope: c.Device.RegisteredScope, UnregisteredScope: c.Device.UnregisteredScope,
			AdditionalAuthScope: c.Device.AdditionalAuthScope, KeyClaim: c.Device.KeyClaim, NonceLifetime: c.Device.NonceLifetime,
		},
		Ledger: s.ledger, LedgerTimeout: c.LedgerOptions.ReserveTimeout, SpendBudget: c.ExtAuthz.SpendBudget, Leeway: c.Leeway,
		DangerouslyPassUnmatched: c.UnmatchedRoutes == "dangerously_pass",
		Record:                   s.decisions.Record, RecordIntent: c.DecisionLog.Blocking, Hash: s.decisions.Hash,
		Observe: s.observe, Log: s.log,
	}
	if s.standing != nil {
		gc.Session.Check = s.standing.Check
	}
	gc.MFA.Verify = v.proveMFA()
	return gate.New(gc)
}

// observe counts one decision.
func (s *service) observe(v *gate.Verdict, took time.Duration) {
	s.metrics.Decision(v.Outcome(), string(v.Reason), v.Operation(), took)
	if v.Advised != "" {
		s.metrics.SDKAdvice(v.SDKLabel)
	}
	if v.Gap != nil {
		s.metrics.ClientGap(v.SDKLabel, v.Operation())
	}
	if v.WouldNeed {
		s.metrics.WouldChallenge(v.SDKLabel, v.Operation())
	}
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
