package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(rec.Body)
	if err != nil || rec.Code != http.StatusOK {
		t.Fatalf("%d %v", rec.Code, err)
	}
	return string(body)
}

func TestEverythingIsServed(t *testing.T) {
	m := New("1.2.3")
	m.Decision("refuse", "forbidden", "wallet.export", time.Millisecond)
	m.Decision("refuse", "forbidden", "wallet.export", time.Millisecond)
	m.Ledger("reserve", "ok", time.Millisecond)
	m.JWKS("app.example", "unreachable")
	m.Introspection("inactive", time.Millisecond)
	m.PolicyReload(nil, time.Unix(1000, 0))
	m.PolicyReload(errors.New("bad"), time.Unix(2000, 0))
	m.RequirementCache(true)
	m.UpstreamFailure("unreachable")
	m.SDKAdvice("WalletKit")
	m.ClientGap("ClientSDK", "credential.link")
	m.WouldChallenge("other", "wallet.export")
	m.SettingsPoll("refused")
	m.SettingsChange("raised")
	m.SessionCheck("ended")
	m.DecisionLogDropped.Inc()
	m.InFlight.Set(3)
	m.Gauge("stepward_ledger_entries", "Entries.", nil, func() float64 { return 7 })
	m.Counter("stepward_token_cache_hits_total", "Hits.", map[string]string{"purpose": "session"}, func() float64 { return 8 })
	got := scrape(t, m)
	for _, want := range []string{
		`stepward_decisions_total{operation="wallet.export",outcome="refuse",reason="forbidden"} 2`,
		`stepward_gate_duration_seconds_count 2`,
		`stepward_ledger_operation_duration_seconds_count{operation="reserve",result="ok"} 1`,
		`stepward_jwks_fetches_total{issuer="app.example",result="unreachable"} 1`,
		`stepward_introspection_duration_seconds_count{result="inactive"} 1`,
		`stepward_policy_reloads_total{result="error"} 1`,
		`stepward_policy_last_reload_successful 0`,
		`stepward_policy_loaded_timestamp_seconds 1000`,
		`stepward_requirement_cache_total{result="hit"} 1`,
		`stepward_upstream_failures_total{kind="unreachable"} 1`,
		`stepward_sdk_advice_total{sdk="WalletKit"} 1`,
		`stepward_client_gaps_total{operation="credential.link",sdk="ClientSDK"} 1`,
		`stepward_would_challenge_total{operation="wallet.export",sdk="other"} 1`,
		`stepward_settings_polls_total{outcome="refused"} 1`,
		`stepward_settings_changes_total{kind="raised"} 1`,
		`stepward_settings_changes_total{kind="downgrade_refused"} 0`,
		`stepward_session_checks_total{result="ended"} 1`,
		`stepward_decision_log_dropped_total 1`,
		`stepward_requests_in_flight 3`,
		`stepward_ledger_entries 7`,
		`stepward_token_cache_hits_total{purpose="session"} 8`,
		`stepward_build_info{version="1.2.3"} 1`,
		`go_goroutines`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

// A policy that makes operation names up from what clients send must not fill the memory.
func TestOperationsAreBounded(t *testing.T) {
	m := New("")
	for i := range 10 * maxOperations {
		m.Decision("allow", "none", fmt.Sprintf("op%d", i), time.Microsecond)
		m.ClientGap("ClientSDK", fmt.Sprintf("op%d", i))
	}
	if n := testutil.CollectAndCount(m.decisions); n > maxOperations+1 {
		t.Errorf("%d series", n)
	}
	if n := testutil.CollectAndCount(m.gaps); n > maxOperations+1 {
		t.Errorf("%d series of gaps", n)
	}
	if len(m.counters) > maxOperations {
		t.Errorf("%d counters are kept", len(m.counters))
	}
}

func TestDecisionAllocatesNothing(t *testing.T) {
	m := New("")
	if n := testing.AllocsPerRun(100, func() { m.Decision("allow", "none", "wallet.sign", time.Microsecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNamesFollowPrometheus(t *testing.T) {
	m := New("")
	m.Decision("allow", "none", "x", 0)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func BenchmarkDecision(b *testing.B) {
	m := New("")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Decision("allow", "none", "wallet.sign", 30*time.Microsecond)
		}
	})
}
