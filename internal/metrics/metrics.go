// Package metrics is everything that Stepward counts, under the prefix stepward_. All label values come from closed sets:
// operations are the policy's, and beyond maxOperations they share one series.
package metrics

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxOperations bounds the series of a policy that computes operation names from what clients send.
const maxOperations = 512

// Metrics is one registry with its instruments. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	decisions  *prometheus.CounterVec
	gate       prometheus.Histogram
	ledger     *prometheus.HistogramVec
	jwks       *prometheus.CounterVec
	introspect *prometheus.HistogramVec
	reloads    *prometheus.CounterVec
	reloadedAt prometheus.Gauge
	reloadGood prometheus.Gauge
	hits       prometheus.Counter
	misses     prometheus.Counter
	upstream   *prometheus.CounterVec
	advice     *prometheus.CounterVec
	gaps       *prometheus.CounterVec
	wouldNeed  *prometheus.CounterVec
	polls      *prometheus.CounterVec
	changes    *prometheus.CounterVec
	sessions   *prometheus.CounterVec

	// DecisionLogDropped counts records that were lost.
	DecisionLogDropped prometheus.Counter
	// InFlight is the requests being proxied.
	InFlight prometheus.Gauge

	mu         sync.RWMutex
	operations map[string]bool
	counters   map[decision]prometheus.Counter // CounterVec hashes and allocates on each look-up
}

type decision struct{ outcome, reason, operation string }

// New returns a registry that also has the Go runtime's and the process's metrics.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_decisions_total",
			Help: "Decisions by outcome (allow, refuse, would_refuse), reason and operation.",
		}, []string{"outcome", "reason", "operation"}),
		gate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "stepward_gate_duration_seconds",
			Help:    "How long the gate took to decide, the ledger included.",
			Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1},
		}),
		ledger: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "stepward_ledger_operation_duration_seconds",
			Help:    "How long the ledger took, by operation (reserve, commit, release) and result.",
			Buckets: []float64{10e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1},
		}, []string{"operation", "result"}),
		jwks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_jwks_fetches_total",
			Help: "Fetches and file reads of keys, by issuer (as configured) and result (ok, unreachable, status, invalid).",
		}, []string{"issuer", "result"}),
		introspect: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "stepward_introspection_duration_seconds",
			Help:    "How long questions about MFA tokens took, by result (active, inactive, unusable, unreachable, status, invalid).",
			Buckets: []float64{1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}, []string{"result"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_policy_reloads_total",
			Help: "Attempts to load the policy, by result (ok, error). After an error the last good one stays in force.",
		}, []string{"result"}),
		reloadedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stepward_policy_loaded_timestamp_seconds",
			Help: "When the policy in force was loaded.",
		}),
		reloadGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stepward_policy_last_reload_successful",
			Help: "1 if the last attempt to load the policy succeeded, else 0.",
		}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_upstream_failures_total",
			Help: "Requests that the backend did not answer, by what is known (unreachable, unknown_outcome, client_gone).",
		}, []string{"kind"}),
		advice: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_sdk_advice_total",
			Help: "Requests of SDKs that are older than the policy advises, by SDK.",
		}, []string{"sdk"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_client_gaps_total",
			Help: "Requests without the elevated token that their SDK is known not to attach, by SDK and operation.",
		}, []string{"sdk", "operation"}),
		wouldNeed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_would_challenge_total",
			Help: "Requests that passed and would be challenged for step-up at the announced version, by SDK and operation.",
		}, []string{"sdk", "operation"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_settings_polls_total",
			Help: "Polls of environment settings, by outcome (ok, unreachable, status, invalid, refused, not_applied).",
		}, []string{"outcome"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_settings_changes_total",
			Help: "Changes of environment settings, by kind (first_seen, raised, lowered, loosened, changed, downgrade_refused).",
		}, []string{"kind"}),
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stepward_session_checks_total",
			Help: "Whether sessions still stand, by what the backend said (stands, ended, unavailable, or remembered: it was not asked).",
		}, []string{"result"}),
		DecisionLogDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stepward_decision_log_dropped_total",
			Help: "Decision records that were lost because the buffer was full or could not be written.",
		}),
		InFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "stepward_requests_in_flight",
			Help: "Requests that are being judged or proxied.",
		}),
		operations: make(map[string]bool),
		counters:   make(map[decision]prometheus.Counter),
	}
	cache := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stepward_requirement_cache_total",
		Help: "Looks into the requirement cache, by result (hit, miss).",
	}, []string{"result"})
	m.hits, m.misses = cache.WithLabelValues("hit"), cache.WithLabelValues("miss")
	// A series that begins at 1 is no increase to Prometheus, and of these the first one matters.
	for _, kind := range []string{"first_seen", "raised", "lowered", "loosened", "changed", "downgrade_refused"} {
		m.changes.WithLabelValues(kind)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stepward_build_info", Help: "Always 1; the version is a label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.decisions, m.gate, m.ledger, m.jwks, m.introspect, m.reloads, m.reloadedAt, m.reloadGood, cache, m.upstream,
		m.advice, m.gaps, m.wouldNeed, m.polls, m.changes, m.sessions,
		m.DecisionLogDropped, m.InFlight, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in the formats that Prometheus reads.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Decision counts one decision and its duration.
func (m *Metrics) Decision(outcome, reason, operation string, took time.Duration) {
	m.gate.Observe(took.Seconds())
	key := decision{outcome, reason, operation}
	m.mu.RLock()
	c := m.counters[key]
	m.mu.RUnlock()
	if c == nil {
		c = m.newCounter(key)
	}
	c.Inc()
}

func (m *Metrics) newCounter(key decision) prometheus.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	label := m.label(key.operation)
	c := m.decisions.WithLabelValues(key.outcome, key.reason, label)
	if label == key.operation { // not remembered under another name: the map must not grow either
		m.counters[key] = c
	}
	return c
}

// label bounds the names of operations. The caller holds m.mu.
func (m *Metrics) label(operation string) string {
	switch {
	case m.operations[operation]:
	case len(m.operations) < maxOperations:
		m.operations[operation] = true
	default:
		return "other"
	}
	return operation
}

// SDKAdvice counts one request of an SDK that is older than the policy advises. The caller bounds the names of SDKs, here and
// below, to those that the policy's data knows.
func (m *Metrics) SDKAdvice(sdk string) { m.advice.WithLabelValues(sdk).Inc() }

// ClientGap counts one request without the token that its SDK is known not to attach.
func (m *Metrics) ClientGap(sdk, operation string) { m.countFor(m.gaps, sdk, operation) }

// WouldChallenge counts one request that passed and would not at the announced version.
func (m *Metrics) WouldChallenge(sdk, operation string) { m.countFor(m.wouldNeed, sdk, operation) }

func (m *Metrics) countFor(vec *prometheus.CounterVec, sdk, operation string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	vec.WithLabelValues(sdk, m.label(operation)).Inc()
}

// Ledger counts one operation of the ledger.
func (m *Metrics) Ledger(operation, result string, took time.Duration) {
	m.ledger.WithLabelValues(operation, result).Observe(took.Seconds())
}

// JWKS counts one attempt to read keys by its outcome, a word of token.FetchOutcomes.
func (m *Metrics) JWKS(issuer, outcome string) { m.jwks.WithLabelValues(issuer, outcome).Inc() }

// Introspection counts one question about an MFA token, by its outcome, a word of token.IntrospectionOutcomes.
func (m *Metrics) Introspection(outcome string, took time.Duration) {
	m.introspect.WithLabelValues(outcome).Observe(took.Seconds())
}

// PolicyReload counts one attempt to load the policy.
func (m *Metrics) PolicyReload(err error, now time.Time) {
	if err != nil {
		m.reloads.WithLabelValues("error").Inc()
		m.reloadGood.Set(0)
		return
	}
	m.reloads.WithLabelValues("ok").Inc()
	m.reloadGood.Set(1)
	m.reloadedAt.Set(float64(now.Unix()))
}

// RequirementCache counts one look into the cache.
func (m *Metrics) RequirementCache(hit bool) {
	if hit {
		m.hits.Inc()
		return
	}
	m.misses.Inc()
}

// UpstreamFailure counts one request without an answer.
func (m *Metrics) UpstreamFailure(kind string) { m.upstream.WithLabelValues(kind).Inc() }

// SettingsPoll counts one poll of one environment's settings.
func (m *Metrics) SettingsPoll(outcome string) { m.polls.WithLabelValues(outcome).Inc() }

// SettingsChange counts one change of an environment's settings, or one that was refused.
func (m *Metrics) SettingsChange(kind string) { m.changes.WithLabelValues(kind).Inc() }

// SessionCheck counts whether one session stands, by a word of package standing.
func (m *Metrics) SessionCheck(result string) { m.sessions.WithLabelValues(result).Inc() }

// Gauge registers a value that is read when the metrics are.
func (m *Metrics) Gauge(name, help string, labels map[string]string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// Counter registers a count that somebody else keeps.
func (m *Metrics) Counter(name, help string, labels map[string]string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, read))
}
