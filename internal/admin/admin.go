// Package admin answers the machines that watch over Stepward: is it alive, may it get requests, what has it counted.
package admin

import (
	"encoding/json"
	"net/http"
)

// Check is one part that must be good before requests may come.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says more: the policy's revision, or what is wrong. It never holds token material.
	Detail string `json:"detail,omitempty"`
	// Warning is something that needs an operator and yet leaves Stepward able to answer, such as a policy that could not be
	// reloaded while the last good one stays in force.
	Warning string `json:"warning,omitempty"`
}

// Config is what the listener shows.
type Config struct {
	Checks  func() []Check
	Metrics http.Handler
}

// report is the body of /readyz.
type report struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Handler serves /healthz (200 while the process answers), /readyz (200 when every check is good, else 503, with details)
// and /metrics.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, map[string]bool{"alive": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := report{Ready: true, Checks: c.Checks()}
		for _, check := range r.Checks {
			r.Ready = r.Ready && check.OK
		}
		status := http.StatusOK
		if !r.Ready {
			status = http.StatusServiceUnavailable
		}
		write(w, status, r)
	})
	mux.Handle("GET /metrics", c.Metrics)
	return mux
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // a client that is gone has no use for it
}
