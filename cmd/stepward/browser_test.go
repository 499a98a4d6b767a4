package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/testkit"
)

// TestABrowserScriptReadsARefusal lets a page of another origin, in a real Chromium, call Stepward.
func TestABrowserScriptReadsARefusal(t *testing.T) {
	script := must(filepath.Abs("../../test/browser/refusal.mjs"))
	testkit.Part(t, "/usr/bin/chromium")
	testkit.Part(t, filepath.Join(filepath.Dir(script), "node_modules/playwright-core"))
	page := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "text/html")
		_, _ = out.Write([]byte("<!doctype html><title>wallet</title>"))
	}))
	defer page.Close()
	for _, c := range []struct {
		name, origin string
		readable     bool
	}{
		{"an allowed origin", page.URL, true},
		{"another origin", "https://app.example", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			// The preflight is the backend's to answer, as behind every proxy.
			allow := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodOptions {
					out.Header().Set("Access-Control-Allow-Origin", page.URL)
					out.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
					out.Header().Set("Access-Control-Allow-Methods", "POST")
					return
				}
				w.backend.Handler().ServeHTTP(out, r)
			}))
			defer allow.Close()
			w.start("upstream: "+allow.URL, "challenge: {cors: {allowed_origins: ['"+c.origin+"']}}")
			headers := must(json.Marshal(map[string]string{"Authorization": "Bearer " + w.session("ann"), "x-dyn-version": "ClientSDK/1.27.1"}))
			cmd := exec.CommandContext(t.Context(), "node", script, page.URL, "http://"+w.service.Addr().String()+w.wallet("ann"), string(headers))
			cmd.Stderr = os.Stderr
			cmd.WaitDelay = time.Minute
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var seen struct {
				Blocked string
				Status  int
				Headers map[string]string
				Body    problem
			}
			if err := json.Unmarshal(out, &seen); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			if !c.readable {
				if seen.Blocked == "" {
					t.Errorf("the script of another origin read %s", out)
				}
				return
			}
			if seen.Status != 403 || seen.Body.Code != "elevated_access_token_required" ||
				!strings.Contains(seen.Headers["step-up-challenge"], "wallet:export") || !strings.Contains(seen.Headers["www-authenticate"], "wallet:export") ||
				seen.Headers["x-request-id"] == "" {
				t.Errorf("the script read %s", out)
			}
		})
	}
}
