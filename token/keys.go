package token

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/stepward/stepward/internal/fetch"
)

// KeysConfig says where one issuer's keys are and how long they are believed. Exactly one of URL and File is required, and
// Now; zero durations and limits take the default named beside them.
type KeysConfig struct {
	// URL of the JWK Set: https, or http on loopback. Redirects are not followed and proxy variables not read.
	URL string
	// File holds the JWK Set in place of URL. It is read by NewKeys and by Reload.
	File string
	// MinRefresh is the least time between two fetches that tokens can cause (15 s).
	MinRefresh time.Duration
	// RefreshEvery is the time between two fetches by Run (5 min). A key that the issuer removed is believed until then.
	RefreshEvery time.Duration
	// MaxStale is how long the last good set is believed while no fetch succeeds (1 h). A file has no age.
	MaxStale time.Duration
	// Timeout bounds one fetch, from dialling to the last byte (3 s).
	Timeout time.Duration
	// MaxBytes bounds the JWK Set (1 MiB), MaxKeys the keys in it (64).
	MaxBytes int64
	MaxKeys  int
	// AllowedAlgorithms are the values of alg that a key may name; nil means Algorithms().
	AllowedAlgorithms []string
	// RootCAs verifies the issuer's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// Now is the clock.
	Now func() time.Time
	// Logger is told by Run when fetching begins to fail and when it works again; nil says nothing.
	Logger *slog.Logger
	// OnFetch is called after every attempt that was not abandoned, with one of FetchOutcomes and how long it took. The next
	// attempt waits for it, so it must not call back. Nil is not called.
	OnFetch func(outcome string, d time.Duration)
}

// Keys holds the keys of one issuer: the last good JWK Set. Its methods are safe for concurrent use; looking up a known key
// takes no lock. The zero value holds no keys and never will.
type Keys struct {
	cfg        KeysConfig
	read       source
	set        atomic.Pointer[keySet]  // nil until the first good set
	last       atomic.Pointer[attempt] // nil until the first attempt
	turn       chan struct{}           // holds the one attempt in progress
	flight     singleflight.Group      // joins the lookups that wait for an attempt
	unknown    *lru.Cache[string, time.Time]
	generation atomic.Uint64 // written by the holder of turn
	first      chan struct{} // closed by the holder of turn with the first set that has a usable key
}

// keySet is one good JWK Set. It is immutable.
type keySet struct {
	keys       map[string]*key
	ignored    int
	fetched    time.Time
	generation uint64
}

type attempt struct {
	at  time.Time
	err error
}

// KeysStats is what there is to see of a Keys.
type KeysStats struct {
	Keys       int       // usable keys
	Ignored    int       // keys of the set that are not for us
	Fetched    time.Time // when the set was read; zero if never
	Generation uint64    // grows whenever a key is removed or changed
	LastError  error     // of the last attempt; nil if it succeeded
}

// The unknown kids that are remembered, and for how many MinRefresh, so that a client with a withdrawn key does not cause
// one fetch after the other.
const (
	unknownKids     = 1024
	unknownLifetime = 4
)

var errNoKeys = errors.New("no usable key")

// NewKeys checks the configuration. A File is read, and a bad one is an error; a URL is not fetched before Run, Refresh or
// the first token.
func NewKeys(c KeysConfig) (*Keys, error) {
	c.defaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("token: keys: %w", err)
	}
	unknown, err := lru.New[string, time.Time](unknownKids)
	if err != nil {
		return nil, fmt.Errorf("token: keys: %w", err)
	}
	k := &Keys{cfg: c, turn: make(chan struct{}, 1), first: make(chan struct{}), unknown: unknown}
	if c.File != "" {
		k.read = fileSource(c.File, c.MaxBytes)
		if err := k.Refresh(context.Background()); err != nil {
			return nil, err
		}
		return k, nil
	}
	u, err := fetch.ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("token: keys: url: %w", err)
	}
	k.read = urlSource(u, &c)
	return k, nil
}

func (c *KeysConfig) defaults() {
	c.MinRefresh = orDefault(c.MinRefresh, 15*time.Second)
	c.RefreshEvery = orDefault(c.RefreshEvery, 5*time.Minute)
	c.MaxStale = orDefault(c.MaxStale, time.Hour)
	c.Timeout = orDefault(c.Timeout, 3*time.Second)
	c.MaxBytes = orDefault(c.MaxBytes, 1<<20)
	c.MaxKeys = orDefault(c.MaxKeys, 64)
	if c.AllowedAlgorithms == nil {
		c.AllowedAlgorithms = Algorithms()
	}
	c.AllowedAlgorithms = slices.Clone(c.AllowedAlgorithms)
}

func (c *KeysConfig) check() error {
	switch {
	case (c.URL == "") == (c.File == ""):
		return errors.New("want one of url and file")
	case c.Now == nil:
		return errors.New("no clock")
	case min(c.MinRefresh, c.RefreshEvery, c.MaxStale, c.Timeout) < 0, c.MaxBytes < 0, c.MaxKeys < 0:
		return errors.New("negative duration or limit")
	case c.MaxStale < c.RefreshEvery:
		return fmt.Errorf("max stale %s is shorter than refresh every %s: good keys would be dropped between two fetches", c.MaxStale, c.RefreshEvery)
	}
	for _, a := range c.AllowedAlgorithms {
		if kindOf(a) == noKey {
			return fmt.Errorf("algorithm %q is not one of %v", a, Algorithms())
		}
	}
	return nil
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Refresh reads the set now, whatever MinRefresh says, and waits for its turn if another attempt is under way. On an error
// the last good set stays, with one exception: a well-formed set without a usable key is the issuer's word that all are
// withdrawn, so it is an error and takes effect.
func (k *Keys) Refresh(ctx context.Context) error {
	return k.attempt(ctx, func() bool { return true })
}

// Reload is Refresh for keys in a File, to be called when it changes, and does nothing for a URL, whose keys come in their
// own time.
func (k *Keys) Reload(ctx context.Context) error {
	if k.cfg.File == "" {
		return nil
	}
	return k.Refresh(ctx)
}

// Run fetches at once and then every RefreshEvery (up to a tenth sooner, so that replicas do not march in step), after a
// failure every MinRefresh. It returns when ctx ends. Keys in a File only change by Reload.
func (k *Keys) Run(ctx context.Context) {
	if k.read == nil || k.cfg.File != "" {
		<-ctx.Done()
		return
	}
	failing := false
	for {
		err := k.Refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		k.report(err, failing)
		failing = err != nil
		timer := time.NewTimer(k.pause(failing))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (k *Keys) pause(failing bool) time.Duration {
	d := k.cfg.RefreshEvery
	if failing {
		d = min(d, k.cfg.MinRefresh)
	}
	return d - time.Duration(rand.Int64N(int64(d/10)+1)) //nolint:gosec // spreads load, hides nothing
}

// report logs the change from working to failing and back, not every attempt.
func (k *Keys) report(err error, failing bool) {
	switch {
	case k.cfg.Logger == nil:
	case err != nil && !failing:
		k.cfg.Logger.Warn("keys cannot be refreshed", "from", k.where(), "error", err)
	case err == nil && failing:
		k.cfg.Logger.Info("keys are refreshed again", "from", k.where())
	}
}

// Ready is nil while there are keys that are believed, else ErrUnavailable with the cause.
func (k *Keys) Ready() error {
	if k.read == nil {
		return ErrUnavailable
	}
	if k.current(k.now()).hasKeys() {
		return nil
	}
	if last := k.last.Load(); last != nil && last.err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, last.err)
	}
	return ErrUnavailable
}

// Wait returns nil as soon as there have been keys to believe, which Run, Refresh or a token must fetch; when ctx ends
// before, it returns ErrUnavailable with the cause.
func (k *Keys) Wait(ctx context.Context) error {
	if k.read == nil {
		return ErrUnavailable
	}
	select {
	case <-k.first:
		return nil
	case <-ctx.Done():
	}
	return k.Ready()
}

// Stats returns what there is to see now.
func (k *Keys) Stats() KeysStats {
	var s KeysStats
	if set := k.set.Load(); set != nil {
		s = KeysStats{Keys: len(set.keys), Ignored: set.ignored, Fetched: set.fetched, Generation: set.generation}
	}
	if last := k.last.Load(); last != nil {
		s.LastError = last.err
	}
	return s
}

// lookup returns the key that a token names, and the generation in which it was found. An unknown kid fetches the set
// anew, at most once in MinRefresh for all callers together.
func (k *Keys) lookup(ctx context.Context, kid, algorithm string) (*key, uint64, error) {
	if k.read == nil {
		return nil, 0, ErrUnavailable
	}
	began := k.now()
	set := k.current(began)
	if found := set.find(kid); found != nil {
		return fitting(found, algorithm, set.generation)
	}
	if set.hasKeys() && (k.cfg.File != "" || k.isUnknown(kid, began)) {
		return nil, 0, errUnknownKid()
	}
	if k.cfg.File != "" {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrUnavailable, k.where(), errNoKeys)
	}
	// An issuer that cannot be asked may have published the key: then nobody knows whether the token is good.
	if err := k.refreshIfDue(ctx); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	before := set
	set = k.current(k.now())
	if found := set.find(kid); found != nil {
		return fitting(found, algorithm, set.generation)
	}
	if set == nil {
		return nil, 0, ErrUnavailable
	}
	// Only a set that was asked for after the question answers it for good: the issuer may have published the key since an
	// older one, or while a fetch that we joined was under way.
	if set != before && !set.fetched.Before(began) {
		k.unknown.Add(kid, began)
	}
	return nil, 0, errUnknownKid()
}

func (s *keySet) hasKeys() bool { return s != nil && len(s.keys) > 0 }

func (s *keySet) find(kid string) *key {
	if s == nil {
		return nil
	}
	return s.keys[kid]
}

func fitting(found *key, algorithm string, generation uint64) (*key, uint64, error) {
	if !found.fits(algorithm) {
		return nil, 0, fmt.Errorf("%w: key is not for this algorithm", ErrInvalid)
	}
	return found, generation, nil
}

func errUnknownKid() error { return fmt.Errorf("%w: unknown key", ErrInvalid) }

func (k *Keys) isUnknown(kid string, now time.Time) bool {
	since, ok := k.unknown.Get(kid)
	age := now.Sub(since)
	return ok && age >= 0 && age < unknownLifetime*k.cfg.MinRefresh
}

// current returns the set while it is believed, else nil.
func (k *Keys) current(now time.Time) *keySet {
	set := k.set.Load()
	if set == nil || k.cfg.File == "" && now.Sub(set.fetched) > k.cfg.MaxStale {
		return nil
	}
	return set
}

// holds reports whether keys of that generation are still believed: none was removed or changed since, and the set is not
// stale.
func (k *Keys) holds(generation uint64, now time.Time) bool {
	set := k.current(now)
	return set != nil && set.generation == generation
}

// refreshIfDue makes an attempt unless there was one within MinRefresh, whose outcome it then repeats. Callers share one
// attempt, which goes on when any of them leaves.
func (k *Keys) refreshIfDue(ctx context.Context) error {
	if last := k.last.Load(); !k.due(last) {
		return last.err
	}
	done := k.flight.DoChan("", func() (any, error) {
		return nil, k.attempt(context.WithoutCancel(ctx), func() bool { return k.due(k.last.Load()) })
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keys) due(last *attempt) bool {
	if last == nil {
		return true
	}
	age := k.now().Sub(last.at)
	return age < 0 || age >= k.cfg.MinRefresh // negative: the clock was set back
}

// attempt reads and installs a set, one at a time. When its turn comes and due no longer holds, it repeats the outcome of the
// attempt before.
func (k *Keys) attempt(ctx context.Context, due func() bool) error {
	if k.read == nil {
		return ErrUnavailable
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, 2*k.cfg.Timeout) // waiting for the turn, then the attempt itself
	defer cancel()
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("token: keys: %w", ctx.Err())
	}
	defer func() { <-k.turn }()
	if !due() {
		return k.last.Load().err
	}
	began := k.now()
	err := k.install(ctx)
	now := k.now()
	if err != nil && caller.Err() != nil {
		return err // the caller left: that says nothing of the issuer, and others must not be told so
	}
	k.last.Store(&attempt{at: now, err: err})
	if k.cfg.OnFetch != nil {
		k.cfg.OnFetch(fetch.Outcome(err), now.Sub(began))
	}
	return err
}

// install is called by the holder of turn only.
func (k *Keys) install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	began := k.now() // a set is as old as the question to which it is the answer
	text, err := k.read(ctx)
	if err != nil {
		return fmt.Errorf("token: keys: %s: %w", k.where(), err)
	}
	parsed, err := parseJWKS(text, k.cfg.MaxKeys, k.cfg.AllowedAlgorithms)
	if err != nil {
		return fmt.Errorf("token: keys: %s: not a usable JWK Set: %w", k.where(), err)
	}
	old := k.set.Load()
	if old == nil || !keeps(parsed.keys, old.keys) {
		k.generation.Add(1)
	}
	k.set.Store(&keySet{keys: parsed.keys, ignored: parsed.ignored, fetched: began, generation: k.generation.Load()})
	switch {
	case len(parsed.keys) > 0:
		k.arrived()
		return nil
	case parsed.ignored > 0:
		return fmt.Errorf("token: keys: %s: %w: %d are not for us, the first is %s", k.where(), errNoKeys, parsed.ignored, parsed.why)
	}
	return fmt.Errorf("token: keys: %s: %w", k.where(), errNoKeys)
}

func (k *Keys) arrived() {
	select {
	case <-k.first:
	default:
		close(k.first)
	}
}

// keeps reports whether all old keys are in the new set, unchanged.
func keeps(set, old map[string]*key) bool {
	for kid, k := range old {
		if now := set[kid]; now == nil || now.digest != k.digest {
			return false
		}
	}
	return true
}

func (k *Keys) now() time.Time { return k.cfg.Now() }

// where names the source in errors and logs: the file, or the address without its query, which may be a secret.
func (k *Keys) where() string {
	if k.cfg.File != "" {
		return k.cfg.File
	}
	return fetch.WithoutQuery(k.cfg.URL)
}
