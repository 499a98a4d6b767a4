package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHandler(t *testing.T) {
	checks := []Check{{Name: "policy", OK: true, Detail: "revision 1", Warning: "last reload failed"}, {Name: "keys", OK: true}}
	h := Handler(Config{
		Checks:  func() []Check { return checks },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") }),
	})
	get := func(method, path string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
		return rec.Code, rec.Body.String()
	}
	ready := func() (int, report) {
		status, body := get(http.MethodGet, "/readyz")
		var r report
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		return status, r
	}

	if status, r := ready(); status != http.StatusOK || !r.Ready || r.Checks[0].Warning == "" {
		t.Errorf("a warning does not make it unready: %d %+v", status, r)
	}
	checks[1].OK = false
	if status, r := ready(); status != http.StatusServiceUnavailable || r.Ready {
		t.Errorf("one bad check: %d %+v", status, r)
	}
	if status, _ := get(http.MethodGet, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	if status, body := get(http.MethodGet, "/metrics"); status != http.StatusOK || body != "metrics" {
		t.Errorf("/metrics: %d %s", status, body)
	}
	for _, c := range []struct{ method, path string }{{http.MethodPost, "/readyz"}, {http.MethodGet, "/"}, {http.MethodGet, "/debug/pprof/"}} {
		if status, _ := get(c.method, c.path); status < 400 {
			t.Errorf("%s %s: %d", c.method, c.path, status)
		}
	}
}
