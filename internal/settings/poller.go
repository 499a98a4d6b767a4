package settings

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stepward/stepward/internal/fetch"
)

// What became of one poll of one environment, besides fetch.OK, Unreachable, Status and Invalid.
const (
	Refused    = "refused"     // a lower minimum than the last good one
	NotApplied = "not_applied" // the policy does not take them
)

// What changed: the closed set of words that Config.OnChange receives.
const (
	FirstSeen        = "first_seen"
	Raised           = "raised"
	Lowered          = "lowered" // by name in AllowDowngrade
	Loosened         = "loosened"
	Changed          = "changed" // none of the above
	DowngradeRefused = "downgrade_refused"
)

// Placeholder stands for the environment's id in the address.
const Placeholder = "{environmentId}"

// Config says whom to ask and what to do with the answers. URL, Environments, Apply, Now and Logger are required; zero durations
// and limits take the default named beside them.
type Config struct {
	// URL has Placeholder once in its path: https, or http on loopback. Redirects are not followed and proxy variables not read.
	URL *url.URL
	// AnyAddress lifts the limits on where URL may lead: it is the backend, which gets the tokens themselves.
	AnyAddress bool
	TLS        *tls.Config // nil means the system's roots
	// Environments are ids of letters, digits, dots, dashes and underscores.
	Environments []string
	// AllowDowngrade are those whose minimum may be lowered.
	AllowDowngrade []string
	Every          time.Duration // between two rounds (1 min)
	Timeout        time.Duration // of one request (5 s)
	MaxBytes       int64         // of one answer (4 MiB)
	// CacheFile keeps the last good settings over a restart; "" keeps them in memory alone.
	CacheFile string
	// Apply puts the settings of all environments in force, by id. On error those before stay in force.
	Apply func(ctx context.Context, all map[string]*Settings) error
	Now   func() time.Time
	// Logger is told of changes, and of failures when they begin and end.
	Logger *slog.Logger
	// OnPoll is told what became of each poll of each environment, OnChange what changed; nil are not called.
	OnPoll, OnChange func(word string)
}

// Poller keeps the settings of environments. Its methods are safe for concurrent use; the zero value is not.
type Poller struct {
	cfg    Config
	client *http.Client
	turn   chan struct{} // holds the round in progress, which alone reads and writes cached and written
	first  chan struct{} // closed when the first round has ended

	cached  map[string]*Settings // what the file should hold, also of environments that are no longer asked about
	written []byte               // what it holds

	mu       sync.Mutex // guards what follows
	states   map[string]State
	cacheErr error
}

// State is what is known of one environment.
type State struct {
	Environment string
	Settings    *Settings // the last good ones; nil before the first
	Read        time.Time // when the backend last confirmed them; zero before this process asked with success
	Err         error     // of the last poll; nil if it succeeded
	said        string    // the failure that was logged last
}

// New checks the configuration and reads the cache. It asks nobody.
func New(c Config) (*Poller, error) {
	c.Every, c.Timeout = orDefault(c.Every, time.Minute), orDefault(c.Timeout, 5*time.Second)
	c.MaxBytes = orDefault(c.MaxBytes, 4<<20)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	p := &Poller{
		cfg: c, turn: make(chan struct{}, 1), first: make(chan struct{}), cached: map[string]*Settings{}, states: map[string]State{},
		client: fetch.NewClient(fetch.Config{
			What: "settings", LoopbackOnly: c.URL.Scheme == "http", AnyAddress: c.AnyAddress, TLS: c.TLS, Timeout: c.Timeout,
		}),
	}
	if c.CacheFile != "" {
		var err error
		if p.cached, err = readCache(c.CacheFile); err != nil {
			return nil, fmt.Errorf("settings: cache file %s: %w; put back a good one, or remove it: then the next answer sets each minimum anew", c.CacheFile, err)
		}
		if p.written, err = encodeCache(p.cached); err != nil {
			return nil, fmt.Errorf("settings: cache file: %w", err)
		}
	}
	for _, id := range c.Environments {
		p.states[id] = State{Environment: id, Settings: p.cached[id]}
	}
	return p, nil
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (c *Config) check() error {
	switch {
	case c.URL == nil || strings.Count(c.URL.Path, Placeholder) != 1 || strings.Contains(c.URL.RawPath, "%"):
		return errors.New("url: want " + Placeholder + " once in a path without escapes")
	case c.Apply == nil || c.Now == nil || c.Logger == nil:
		return errors.New("no Apply, clock or logger")
	case min(c.Every, c.Timeout) < 0 || c.MaxBytes < 0:
		return errors.New("negative duration or limit")
	case len(c.Environments) == 0:
		return errors.New("no environments")
	}
	for _, id := range c.Environments {
		if !IsID(id) {
			return fmt.Errorf("environment %.40q: want letters, digits, dots, dashes and underscores", id)
		}
	}
	if c.AnyAddress {
		return nil
	}
	if _, err := fetch.ParseURL(c.URL.String()); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	return nil
}

// IsID reports whether an environment's id can stand in a path as it is.
func IsID(id string) bool {
	return isName(id) && !strings.Contains(id, ":") && strings.Trim(id, ".") != ""
}

// Known returns the last good settings of each environment that has any, by id. They come from the cache before the first poll.
func (p *Poller) Known() map[string]*Settings {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[string]*Settings{}
	for id, s := range p.states {
		if s.Settings != nil {
			known[id] = s.Settings
		}
	}
	return known
}

// States lists what is known, in the order of Config.Environments.
func (p *Poller) States() []State {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]State, len(p.cfg.Environments))
	for i, id := range p.cfg.Environments {
		list[i] = p.states[id]
	}
	return list
}

// CacheError is why the cache could not be written; nil when it holds what is known.
func (p *Poller) CacheError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cacheErr
}

// First is closed when every environment has been asked about once, whatever came of it.
func (p *Poller) First() <-chan struct{} { return p.first }

// Run polls at once and then every Every (up to a tenth sooner, so that replicas do not march in step), sooner while polls fail.
// It returns when ctx ends.
func (p *Poller) Run(ctx context.Context) {
	for {
		p.Poll(ctx)
		timer := time.NewTimer(p.pause())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// retry is the longest pause after a poll that brought no settings.
const retry = 15 * time.Second

func (p *Poller) pause() time.Duration {
	d := p.cfg.Every
	if slices.ContainsFunc(p.States(), State.unanswered) {
		d = min(d, retry)
	}
	return d - time.Duration(rand.Int64N(int64(d/10)+1)) //nolint:gosec // spreads load, hides nothing
}

// unanswered is false for settings that came and were not taken: asking sooner changes nothing, and trying them costs time.
func (s State) unanswered() bool {
	outcome := fetch.Outcome(s.Err)
	return outcome != fetch.OK && outcome != Refused && outcome != NotApplied
}

// Poll asks about every environment now and puts what changed in force. A round that is under way is waited for.
func (p *Poller) Poll(ctx context.Context) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-p.turn }()
	answers := p.ask(ctx)
	p.install(ctx, answers)
	if ctx.Err() != nil {
		return // what failed now says nothing of the backend; what was put in force is asked for again and is no change then
	}
	for _, id := range p.cfg.Environments {
		p.settle(id, answers[id])
	}
	p.save()
	select {
	case <-p.first:
	default:
		close(p.first)
	}
}

// Check asks once, and returns the settings that would be in force and what is wrong with the answers. It changes nothing.
func (p *Poller) Check(ctx context.Context) (map[string]*Settings, []error) {
	all := p.Known()
	var errs []error
	answers := p.ask(ctx)
	for _, id := range p.cfg.Environments {
		if a := answers[id]; a.err != nil {
			errs = append(errs, fmt.Errorf("settings of environment %s: %w", id, a.err))
		} else {
			all[id] = a.settings
		}
	}
	return all, errs
}

// answer is what came of one poll.
type answer struct {
	settings *Settings
	err      error
}

// maxAtOnce bounds the requests under way.
const maxAtOnce = 8

func (p *Poller) ask(ctx context.Context) map[string]*answer {
	known := p.Known()
	answers := map[string]*answer{}
	slots := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for _, id := range p.cfg.Environments {
		a := &answer{}
		answers[id] = a
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if a.settings, a.err = p.fetch(ctx, id); a.err == nil {
				a.err = p.judge(id, known[id], a.settings)
			}
		})
	}
	wg.Wait()
	return answers
}

func (p *Poller) fetch(ctx context.Context, id string) (*Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	u := *p.cfg.URL
	u.Path, u.RawPath = strings.Replace(u.Path, Placeholder, id, 1), ""
	text, err := fetch.Get(ctx, p.client, u.String(), "application/json", p.cfg.MaxBytes)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// judge refuses a lower minimum, and with it all else that the answer says.
func (p *Poller) judge(id string, last, now *Settings) error {
	if last == nil || !now.MinimumAPIVersion.Less(last.MinimumAPIVersion) || slices.Contains(p.cfg.AllowDowngrade, id) {
		return nil
	}
	return &fetch.Error{Outcome: Refused, Err: fmt.Errorf("the minimum API version %s is below the last known %s; "+
		"if that is meant, name the environment in dangerously_allow_downgrade", now.MinimumAPIVersion, last.MinimumAPIVersion)}
}

// install applies what changed, all at once or, where that fails, one by one: what the policy does not take of one environment
// must not keep the floor of another from rising.
func (p *Poller) install(ctx context.Context, answers map[string]*answer) {
	all := p.Known()
	next := maps.Clone(all)
	var changed []string
	for _, id := range p.cfg.Environments {
		if a := answers[id]; a.err == nil && !a.settings.Equal(all[id]) {
			changed = append(changed, id)
			next[id] = a.settings
		}
	}
	if len(changed) == 0 {
		return
	}
	err := p.cfg.Apply(ctx, next)
	if err == nil {
		return
	}
	for _, id := range changed {
		a := answers[id]
		if next = maps.Clone(all); len(changed) > 1 {
			next[id] = a.settings
			err = p.cfg.Apply(ctx, next)
		}
		if err != nil {
			a.err = &fetch.Error{Outcome: NotApplied, Err: fmt.Errorf("the policy does not take them: %w", err)}
			continue
		}
		all = next
	}
}

// settle remembers what came of a poll, and tells of it.
func (p *Poller) settle(id string, a *answer) {
	p.mu.Lock()
	s := p.states[id]
	last, said := s.Settings, s.said
	s.Err, s.said = a.err, subject(a)
	if a.err == nil {
		s.Settings, s.Read = a.settings, p.cfg.Now()
		p.cached[id] = a.settings
	}
	p.states[id] = s
	p.mu.Unlock()

	count(p.cfg.OnPoll, fetch.Outcome(a.err))
	if a.err == nil {
		p.tellChange(id, last, a.settings)
	}
	if s.said != said {
		p.tellFailure(id, a.err)
	}
}

// subject is equal for failures that need to be told once: the text of an error may differ from poll to poll.
func subject(a *answer) string {
	switch outcome := fetch.Outcome(a.err); outcome {
	case fetch.OK:
		return ""
	case Refused, NotApplied:
		return outcome + a.err.Error()
	default:
		return outcome
	}
}

func (p *Poller) tellFailure(id string, err error) {
	log := p.cfg.Logger.With("environment", id)
	switch fetch.Outcome(err) {
	case fetch.OK:
		log.Info("environment settings are read again")
	case Refused:
		count(p.cfg.OnChange, DowngradeRefused)
		log.Warn("environment settings refused: the last good ones stay in force", "error", err)
	case NotApplied:
		log.Error("environment settings cannot be put in force: those before stay", "error", err)
	default:
		log.Warn("environment settings cannot be read: the last good ones, or else the policy data, stay in force", "error", err)
	}
}

func (p *Poller) tellChange(id string, last, now *Settings) {
	if now.Equal(last) {
		return
	}
	log := p.cfg.Logger.With("environment", id)
	if last == nil {
		count(p.cfg.OnChange, FirstSeen)
		log.Info("environment settings read for the first time", "minimum_api_version", string(now.MinimumAPIVersion), "locked", now.Locked)
		return
	}
	told := false
	tell := func(kind string) {
		told = true
		count(p.cfg.OnChange, kind)
	}
	from, to := last.MinimumAPIVersion, now.MinimumAPIVersion
	switch {
	case from.Less(to):
		tell(Raised)
		log.Info("minimum API version raised", "from", string(from), "to", string(to))
	case to.Less(from):
		tell(Lowered)
		log.Warn("minimum API version lowered, as dangerously_allow_downgrade allows", "from", string(from), "to", string(to))
	}
	if list := last.loosened(now); len(list) > 0 {
		tell(Loosened)
		log.Warn("environment settings demand less than before", "what", list)
	}
	if !told {
		tell(Changed)
		log.Info("environment settings changed", "locked", now.Locked)
	}
}

func count(f func(string), word string) {
	if f != nil {
		f(word)
	}
}

// save writes the cache where it does not hold what is known. A failure is told once, and tried again after the next round.
func (p *Poller) save() {
	if p.cfg.CacheFile == "" {
		return
	}
	text, err := encodeCache(p.cached)
	if err == nil && bytes.Equal(text, p.written) {
		return
	}
	if err == nil {
		err = writeCache(p.cfg.CacheFile, text)
	}
	if err == nil {
		p.written = text
	}
	p.mu.Lock()
	before := p.cacheErr
	p.cacheErr = err
	p.mu.Unlock()
	switch {
	case err != nil && before == nil:
		p.cfg.Logger.Error("environment settings cannot be kept for a restart", "cache_file", p.cfg.CacheFile, "error", err)
	case err == nil && before != nil:
		p.cfg.Logger.Info("environment settings are kept for a restart again", "cache_file", p.cfg.CacheFile)
	}
}
