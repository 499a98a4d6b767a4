//go:generate go test -run ^TestTheCoverageTableIsFresh$ . -args -update

// Package policy evaluates the operator's Rego and returns typed requirements. It is the only importer of OPA.
//
// Routes, compiled query, data and revision are swapped as one immutable Snapshot behind one atomic pointer. A snapshot is
// built and probed before it is swapped in; on any error the old one stays.
package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
)

// Config says where the policy is and how it is evaluated.
type Config struct {
	FS          fs.FS         // *.rego, data.yaml and *_test.rego (not loaded); required
	CacheSize   int           // requirements remembered, default 10,000
	EvalTimeout time.Duration // for one evaluation, default 1 s
	// Scopes are those that tell elevated tokens from sessions; data that asks for another is a problem. Nil checks nothing.
	Scopes []string
	// Synced is what a backend says of its environments, by id; Engine.Sync puts another in its place.
	Synced map[string]Synced
	// DisableCache evaluates every request.
	DisableCache bool
	// ShowAll shows the policy the whole input and not only what it can read, for the differential test. It disables the cache.
	ShowAll bool
	// OnReload is told the revision in force and the outcome after every Reload. It must not call Reload.
	OnReload func(revision string, err error)
	// OnCache is told of every look into the requirement cache.
	OnCache func(hit bool)
}

// Engine holds the policy in force. Safe for concurrent use. The zero Engine has no snapshot, and the gate refuses then.
type Engine struct {
	config  Config // its Synced is guarded by reloading
	current atomic.Pointer[Snapshot]

	reloading sync.Mutex // one reload at a time
	mu        sync.Mutex // guards lastErr, and is never held for long: readiness probes ask
	lastErr   error
}

// New loads and probes the policy. The error is a Problems that lists everything wrong at once.
func New(ctx context.Context, c Config) (*Engine, error) {
	if c.FS == nil {
		return nil, errors.New("policy: config: FS is required")
	}
	if c.CacheSize < 0 {
		return nil, fmt.Errorf("policy: config: CacheSize %d: want a positive number", c.CacheSize)
	}
	if c.CacheSize == 0 {
		c.CacheSize = 10_000
	}
	if c.EvalTimeout == 0 {
		c.EvalTimeout = time.Second
	}
	e := &Engine{config: c}
	snap, err := load(ctx, &c)
	if err != nil {
		return nil, err
	}
	e.current.Store(snap)
	return e, nil
}

// Check returns everything that is wrong with a policy, the syntax of its tests too; nil when New would take it and its tests
// can be read. It does not run the tests.
func Check(ctx context.Context, c Config) Problems {
	_, err := New(ctx, c)
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		return Problems{{File: ".", Message: err.Error()}}
	}
	s, _ := read(c.FS) // its problems are among New's
	_, more := s.parsedTests()
	return sorted(append(problems, more...))
}

// Snapshot returns the policy in force, nil if there is none. Read it once per request and pass it on.
func (e *Engine) Snapshot() *Snapshot {
	if e == nil {
		return nil
	}
	return e.current.Load()
}

// Reload reads the files again and swaps the new policy in if it is whole and passes its probe. On error the old one stays
// in force and LastError says why.
func (e *Engine) Reload(ctx context.Context) error {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	if e.config.FS == nil { // the zero Engine
		return errors.New("policy: reload: the engine was not made by New")
	}
	snap, err := load(ctx, &e.config)
	if err == nil {
		e.current.Store(snap)
	}
	e.mu.Lock()
	e.lastErr = err
	e.mu.Unlock()
	if e.config.OnReload != nil {
		e.config.OnReload(e.Snapshot().Revision(), err)
	}
	return err
}

// LastError is the error of the last Reload, nil when it took.
func (e *Engine) LastError() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lastErr
}

// Snapshot is one loaded policy: immutable, safe for concurrent use. A nil Snapshot matches nothing and requires an error.
type Snapshot struct {
	table    table
	data     *data
	prepared rego.PreparedEvalQuery
	reads    reads
	cache    *cache // nil when off
	files    files  // what it was built from, for Sync
	revision string
	timeout  time.Duration
	onCache  func(hit bool)
	asksMFA  map[string]bool // environments where the probe was asked for an MFA token
}

// Revision is a hash over the policy's files, 16 hex digits; where environments were synced, "+" and 8 hex digits over what
// their backend said.
func (s *Snapshot) Revision() string {
	if s == nil {
		return ""
	}
	return s.revision
}

// Match fills m with the route for one method and canonical path. m.Params is reused.
func (s *Snapshot) Match(method, path string, m *Match) {
	if s == nil || path == "" || path[0] != '/' { // the target * is no path
		*m = Match{Params: m.Params[:0]}
		return
	}
	s.table.match(method, path, m)
}

// HasPath reports whether any route matches the path with whatever method.
func (s *Snapshot) HasPath(path string) bool {
	return s != nil && strings.HasPrefix(path, "/") && len(s.table.allow(path)) > 0
}

// Routes lists the routes in the order of the data.
func (s *Snapshot) Routes() []*Route {
	if s == nil {
		return nil
	}
	return slices.Clone(s.table.routes)
}

// InputHeaders lists the request headers that the policy sees, in lower case and sorted. A door that is told which headers
// to pass on needs them.
func (s *Snapshot) InputHeaders() []string {
	if s == nil {
		return nil
	}
	names := make([]string, len(s.data.headers))
	for i, name := range s.data.headers {
		names[i] = name.lower
	}
	return names
}

// Environment is what the data says of an environment; an unknown one gets "default".
func (s *Snapshot) Environment(id string) Environment {
	if s == nil {
		return Environment{}
	}
	if e, ok := s.data.environments[id]; ok {
		return e
	}
	return s.data.environments["default"]
}

// ImitatesEnvironment reports whether an id differs from a listed environment's by case alone: a backend may take it for that
// one.
func (s *Snapshot) ImitatesEnvironment(id string) bool {
	if s == nil {
		return false
	}
	_, listed := s.data.environments[id]
	return !listed && s.data.imitable[foldID(id)]
}

// KnowsSDK reports whether the data names an SDK, in a minimum or as one with a known gap. Those are the names that are fit for
// a metric's label: every other one is whatever a client made up.
func (s *Snapshot) KnowsSDK(name string) bool { return s != nil && s.data.sdks[name] }

// Shadowed lists the environments that only rehearse, sorted.
func (s *Snapshot) Shadowed() []string {
	if s == nil {
		return nil
	}
	var ids []string
	for id, e := range s.data.environments {
		if e.Shadow {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// AskingForMFA lists the environments in which an operation needs the old action-based MFA token, sorted; "" is every one that
// the data does not name. It knows what the load probe was answered.
func (s *Snapshot) AskingForMFA() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.asksMFA))
}

// Cached reports whether requirements are remembered.
func (s *Snapshot) Cached() bool { return s != nil && s.cache != nil }

// Require asks the policy what the request must bring. An undefined, malformed or late answer is an error, and so is a
// policy that makes OPA panic.
func (s *Snapshot) Require(ctx context.Context, in *Input) (*Requirement, error) {
	if s == nil {
		return nil, errors.New("policy: none loaded")
	}
	if s.cache == nil {
		return s.eval(ctx, in)
	}
	key := s.cache.key(s.reads, in, s.data.headers)
	q, hit := s.cache.entries.Get(key)
	if s.onCache != nil {
		s.onCache(hit)
	}
	if hit {
		return q, nil
	}
	q, err := s.eval(ctx, in)
	if err != nil {
		return nil, err
	}
	s.cache.entries.Add(key, q)
	return q, nil
}

func (s *Snapshot) eval(ctx context.Context, in *Input) (q *Requirement, err error) {
	defer func() {
		if p := recover(); p != nil {
			q, err = nil, fmt.Errorf("policy: evaluation panicked: %v", p)
		}
	}()
	value, err := s.reads.value(in, s.data.headers)
	if err != nil {
		return nil, fmt.Errorf("policy: input: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	results, err := s.prepared.Eval(ctx, rego.EvalParsedInput(value), rego.EvalRuleIndexing(true))
	if err != nil {
		return nil, evaluated(err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, fmt.Errorf("policy: %s is undefined", query)
	}
	q, err = decode(results[0].Expressions[0].Value)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return q, nil
}
