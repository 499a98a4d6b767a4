package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/extauthz"
	"github.com/stepward/stepward/internal/admin"
	"github.com/stepward/stepward/internal/decisionlog"
	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/metrics"
	"github.com/stepward/stepward/internal/settings"
	"github.com/stepward/stepward/internal/standing"
	"github.com/stepward/stepward/internal/watch"
	"github.com/stepward/stepward/ledger"
	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/proxy"
	"github.com/stepward/stepward/token"
)

// service is one Stepward with everything it holds open. newService makes it, Run ends it.
type service struct {
	config  *config.Config
	log     *slog.Logger
	metrics *metrics.Metrics

	watchers  []*watch.Watcher
	policy    *policy.Engine
	settings  *settings.Poller // nil where no environment follows its backend
	keys      []*keySource
	door      *listen.Server // nil without an upstream: other proxies forward, and only ask here
	asked     []server       // where they ask
	admin     *listen.Server
	decisions *decisionlog.Log
	ledger    ledger.Store
	proxy     *proxy.Proxy
	standing  *standing.Checker // nil where nobody is asked

	extAuthz, forwardAuth net.Addr       // of the doors in asked; nil when closed
	extAuthzListener      net.Listener   // until its door is made, which takes it over
	forwardAuthDoor       *extauthz.HTTP // nil when closed
	certificates          []reloader

	madeLog, madeLedger string // files that were not there before

	serving  atomic.Bool
	started  bool // was ready once; only Run and close, which follows it, look
	draining atomic.Bool

	certificate atomic.Pointer[error] // of the last reload

	unknownActions []string // told last; only the poller looks, which does one thing at a time
}

// server is one listener, of whatever protocol.
type server interface {
	Addr() net.Addr
	Serve() error
	Shutdown(ctx context.Context) error
}

// servers are all that are open, the doors before the admin listener, which tells of their end.
func (s *service) servers() []server {
	var list []server
	if s.door != nil {
		list = append(list, s.door)
	}
	list = append(list, s.asked...)
	if s.admin != nil {
		list = append(list, s.admin)
	}
	return list
}

// Addr is where the reverse-proxy door listens, nil without one.
func (s *service) Addr() net.Addr {
	if s.door == nil {
		return nil
	}
	return s.door.Addr()
}

// AdminAddr is where the admin listener listens.
func (s *service) AdminAddr() net.Addr { return s.admin.Addr() }

func (s *service) serveDoor(w http.ResponseWriter, r *http.Request) {
	s.metrics.InFlight.Inc()
	defer s.metrics.InFlight.Dec()
	s.proxy.ServeHTTP(w, r)
}

// Run serves until ctx ends, then lets requests in flight finish and closes everything. It listens at once and is ready once
// every issuer's keys are there, for which it waits jwks.start_wait, and every environment's settings have been asked for.
func (s *service) Run(ctx context.Context) error {
	s.serving.Store(true)
	s.announce()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, listener := range s.servers() {
		wg.Go(func() {
			if err := listener.Serve(); err != nil {
				cancel(err)
			}
		})
	}
	for _, source := range s.keys {
		wg.Go(func() { source.Run(ctx) })
	}
	for _, w := range s.watchers {
		wg.Go(func() { w.Run(ctx) })
	}
	if s.settings != nil {
		wg.Go(func() { s.settings.Run(ctx) })
	}
	if err := waitForKeys(ctx, s.keys, s.config.JWKS.StartWait); err != nil && ctx.Err() == nil {
		cancel(fmt.Errorf("%w; nothing can be verified without them", err))
	} else if err == nil && s.waitForSettings(ctx) {
		s.started = true
		s.log.Info("ready", append(s.addresses(),
			"policy_revision", s.policy.Snapshot().Revision(), "ledger", string(s.config.Ledger.Kind))...)
	}
	<-ctx.Done()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil // asked to end
	}
	err = errors.Join(err, s.drain())
	wg.Wait()
	return errors.Join(err, s.close())
}

// addresses are where each door listens.
func (s *service) addresses() []any {
	var list []any
	if s.door != nil {
		list = append(list, "listen", s.Addr().String(), "upstream", s.config.Upstream.String())
	}
	if s.extAuthz != nil {
		list = append(list, "ext_authz", s.extAuthz.String())
	}
	if s.forwardAuth != nil {
		list = append(list, "forward_auth", s.forwardAuth.String())
	}
	return append(list, "admin", s.AdminAddr().String())
}

// announce says what weakens this Stepward.
func (s *service) announce() {
	for _, w := range s.config.Warnings() {
		s.log.Warn(w)
	}
	s.warnOfShadow()
	s.warnOfMFA()
	s.warnOfFence()
	s.warnOfActions()
}

func (s *service) warnOfMFA() {
	if w := warningOfMFA(s.config, s.policy.Snapshot()); w != "" {
		s.log.Warn(w)
	}
}

// warnOfFence says why tokens that are good everywhere else are refused by a ledger that is new.
func (s *service) warnOfFence() {
	stats, err := s.ledger.Stats(context.Background())
	if err != nil || time.Since(stats.Fence) > s.config.Elevated.MaxLifetime {
		return
	}
	s.log.Warn("the ledger is new: single-use tokens issued before its time may have been spent already and are refused; users verify again",
		"issued_before", stats.Fence.UTC().Format(time.RFC3339), "ledger", string(s.config.Ledger.Kind))
}

func (s *service) warnOfShadow() {
	if ids := s.policy.Snapshot().Shadowed(); len(ids) > 0 {
		s.log.Warn("mode: shadow: requests of these environments are judged and passed whatever comes of it", "environments", ids)
	}
}

func (s *service) policyReloaded(revision string, err error) {
	s.metrics.PolicyReload(err, time.Now())
	if err != nil {
		s.log.Error("policy not loaded; the last good one stays in force", "policy_revision", revision, "problems", lines(inFolder(s.config.Policy.Path, err)))
		return
	}
	s.log.Info("policy loaded", "policy_revision", revision)
	s.warnOfShadow()
	s.warnOfMFA()
}

// follow makes the watchers. They remember what is on the disk now, so that what is loaded afterwards and changes is seen.
func (s *service) follow() error {
	var errs []error
	add := func(interval time.Duration, changed func(context.Context), paths ...string) {
		paths = slices.DeleteFunc(paths, func(p string) bool { return p == "" })
		if len(paths) == 0 {
			return
		}
		w, err := watch.New(watch.Config{
			Paths: paths, Interval: interval, OnChange: changed,
			OnError: func(err error) {
				s.log.Warn("a watched file cannot be read; what was read before stays in force", "error", err)
			},
		})
		s.watchers, errs = append(s.watchers, w), append(errs, err)
	}
	c := s.config
	if c.Policy.WatchInterval > 0 {
		add(c.Policy.WatchInterval, s.reloadPolicy, c.Policy.Path)
	}
	for _, t := range []config.TLS{c.TLS, c.ExtAuthz.TLS, c.ForwardAuth.TLS} {
		add(0, func(context.Context) { s.reloadCertificates() }, t.CertFile, t.KeyFile, t.ClientCAFile)
	}
	var keyFiles []string
	for _, issuers := range [][]config.Issuer{c.SessionIssuers(), c.ElevatedIssuers(), c.MFAIssuers()} {
		for _, i := range issuers {
			keyFiles = append(keyFiles, i.JWKSFile)
		}
	}
	add(0, s.reloadKeys, keyFiles...)
	return errors.Join(errs...)
}

// Reload reads policy, keys in files and certificates again, asks for environment settings, and opens the decision log anew. What cannot be read, or does not
// pass its probe, stays as it was, and is logged.
func (s *service) Reload(ctx context.Context) {
	s.log.Info("reloading")
	s.reloadPolicy(ctx)
	s.reloadCertificates()
	s.reloadKeys(ctx)
	if err := s.decisions.Reopen(); err != nil {
		s.log.Error("decision log not reopened", "error", err)
	}
	if s.settings != nil {
		s.settings.Poll(ctx)
	}
}

func (s *service) reloadPolicy(ctx context.Context) {
	_ = s.policy.Reload(ctx) // policyReloaded is told
}

// reloader reads certificates again.
type reloader interface{ Reload() error }

func (s *service) reloadCertificates() {
	var errs []error
	for _, c := range s.certificates {
		errs = append(errs, c.Reload())
	}
	err := errors.Join(errs...)
	s.certificate.Store(&err)
	if err != nil {
		s.log.Error("certificate not reloaded; the last good one stays in use", "error", err)
	}
}

func (s *service) reloadKeys(ctx context.Context) {
	for _, source := range s.keys {
		if err := source.Reload(ctx); err != nil {
			s.log.Error("keys not reloaded", "issuer", source.issuer, "error", err)
		}
	}
}

// checks is what /readyz shows.
func (s *service) checks() []admin.Check {
	list := []admin.Check{{Name: "listener", OK: s.serving.Load() && !s.draining.Load()}}
	if s.draining.Load() {
		list[0].Detail = "draining"
	}
	if c := s.config; c.TLS.CertFile+c.ExtAuthz.TLS.CertFile+c.ForwardAuth.TLS.CertFile != "" {
		list = append(list, admin.Check{Name: "certificate", OK: true})
		if err := s.certificate.Load(); err != nil && *err != nil {
			list[1].Warning = "the last good one stays in use: " + (*err).Error()
		}
	}
	list = append(list, s.policyCheck())
	list = append(list, s.settingsChecks()...)
	for _, source := range s.keys {
		list = append(list, source.check())
	}
	return append(list, s.ledgerCheck())
}

func (s *service) policyCheck() admin.Check {
	snapshot := s.policy.Snapshot()
	c := admin.Check{Name: "policy", OK: snapshot != nil, Detail: "revision " + snapshot.Revision()}
	if err := s.policy.LastError(); err != nil {
		c.Warning = "the last good one stays in force: " + inFolder(s.config.Policy.Path, err).Error()
	}
	return c
}

func (k *keySource) check() admin.Check {
	c := admin.Check{Name: "keys of " + k.issuer, OK: true}
	stats := k.Stats()
	if err := k.Ready(); err != nil {
		c.OK, c.Detail = false, err.Error()
		return c
	}
	c.Detail = fmt.Sprintf("%d key%s, read at %s", stats.Keys, plural(stats.Keys), stats.Fetched.UTC().Format(time.RFC3339))
	if stats.LastError != nil {
		c.Warning = "the last good ones are believed until they are too old: " + stats.LastError.Error()
	}
	return c
}

func (s *service) ledgerCheck() admin.Check {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := admin.Check{Name: "ledger", OK: true}
	stats, err := s.ledger.Stats(ctx)
	if err != nil {
		c.OK, c.Detail = false, err.Error()
		return c
	}
	c.Detail = fmt.Sprintf("%d of %d entries", stats.Entries, stats.Capacity)
	if stats.Capacity == 0 {
		c.Detail = fmt.Sprintf("%d entries", stats.Entries)
	}
	if stats.Capacity > 0 && stats.Entries >= stats.Capacity {
		c.Warning = "full: single-use operations are refused until entries expire; raise ledger_options.capacity"
	}
	return c
}

// Ready returns nil once /readyz says so.
func (s *service) Ready(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		waitsFor := slices.IndexFunc(s.checks(), func(c admin.Check) bool { return !c.OK })
		if waitsFor < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %s: %w", s.checks()[waitsFor].Name, ctx.Err())
		case <-tick.C:
		}
	}
}

// drain turns /readyz to 503 and lets requests in flight finish.
func (s *service) drain() error {
	s.draining.Store(true)
	s.log.Info("draining", "at_most", s.config.Limits.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Limits.Drain)
	defer cancel()
	var errs []error
	for _, listener := range s.servers() {
		errs = append(errs, listener.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// close gives back what is open, the ledger before the log that its last outcomes go to. A start that failed leaves no file
// behind that it made, unless there is something in it.
func (s *service) close() error {
	var errs []error
	for _, listener := range s.servers() {
		if !s.serving.Load() {
			errs = append(errs, listener.Shutdown(context.Background())) // nothing was served, so nothing is waited for
		}
	}
	if s.extAuthzListener != nil && !s.serving.Load() {
		_ = s.extAuthzListener.Close() // its door may not have come to be
	}
	if s.proxy != nil {
		s.proxy.CloseIdleConnections()
	}
	if s.standing != nil {
		s.standing.Close()
	}
	var empty []string
	if s.ledger != nil {
		if stats, err := s.ledger.Stats(context.Background()); err == nil && stats.Entries == 0 {
			empty = append(empty, s.madeLedger)
		}
		errs = append(errs, s.ledger.Close())
	}
	if s.decisions != nil {
		errs = append(errs, s.decisions.Close(5*time.Second))
	}
	if info, err := os.Stat(s.madeLog); err == nil && info.Size() == 0 {
		empty = append(empty, s.madeLog)
	}
	for _, name := range empty {
		if name != "" && !s.started {
			errs = append(errs, os.Remove(name))
		}
	}
	return errors.Join(errs...)
}

// registerGauges adds what is read when the metrics are.
func (s *service) registerGauges(v verifiers) {
	m := s.metrics
	stats := func() ledger.Stats {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		st, _ := s.ledger.Stats(ctx) // a broken ledger holds nothing, and /readyz says so
		return st
	}
	m.Gauge("stepward_ledger_up", "1 while the ledger answers, 0 while it is broken or out of reach.", nil, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.ledger.Stats(ctx); err != nil {
			return 0
		}
		return 1
	})
	m.Gauge("stepward_ledger_entries", "Spent tokens that the ledger remembers.", nil, func() float64 { return float64(stats().Entries) })
	m.Gauge("stepward_ledger_capacity", "How many it can remember; 0 where a server's memory is the limit.", nil,
		func() float64 { return float64(stats().Capacity) })
	m.Gauge("stepward_ledger_fence_timestamp_seconds", "Tokens issued before are refused: the ledger's memory begins here.", nil,
		func() float64 {
			if at := stats().Fence; !at.IsZero() {
				return float64(at.UnixMilli()) / 1000
			}
			return 0
		})
	for _, source := range s.keys {
		labels := map[string]string{"issuer": source.issuer}
		m.Gauge("stepward_jwks_keys", "Usable keys, by issuer.", labels, func() float64 { return float64(source.Stats().Keys) })
		m.Gauge("stepward_jwks_last_success_timestamp_seconds", "When the keys in use were last read, by issuer; 0 is never.", labels,
			func() float64 {
				if at := source.Stats().Fetched; !at.IsZero() {
					return float64(at.UnixMilli()) / 1000
				}
				return 0
			})
	}
	for purpose, verifier := range map[string]*token.Verifier{"session": v.session, "elevated": v.elevated, "mfa": v.mfa} {
		labels := map[string]string{"purpose": purpose}
		m.Counter("stepward_token_cache_hits_total", "Tokens answered from memory, by purpose.", labels,
			func() float64 { return float64(verifier.Stats().Hits) })
		m.Counter("stepward_token_cache_misses_total", "Tokens that had to be proven, by purpose.", labels,
			func() float64 { return float64(verifier.Stats().Misses) })
	}
}
