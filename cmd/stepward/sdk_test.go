package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
	"github.com/stepward/stepward/examples/oidc"
	"github.com/stepward/stepward/internal/testkit"
)

// TestDynamicsSDK runs the SDK that wallets ship, @dynamic-labs-sdk/client, in a real Chromium against Stepward, the example
// issuer and the example backend. What it does there, and what it must see, stands in test/browser/scenarios.
func TestDynamicsSDK(t *testing.T) {
	browser := must(filepath.Abs("../../test/browser"))
	testkit.Part(t, "/usr/bin/chromium")
	node := testkit.Part(t, "node")
	testkit.Part(t, filepath.Join(browser, "node_modules/@dynamic-labs-sdk/client"))
	app := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), node, filepath.Join(browser, "bundle.mjs"), app).CombinedOutput(); err != nil {
		t.Fatalf("bundle: %v\n%s", err, out)
	}
	scenarios := []scenario{
		{name: "signin"},
		{name: "email"},
		{name: "totp"},
		{name: "recovery"},
		{name: "passkey"},
		{name: "external"},
		{name: "social"},
		{name: "gaps"},
		{name: "governed"},
		{name: "device"},
		{name: "cookie", rules: "{device_cookie: true}", cookies: true},
		{name: "outdated"},
		// The second event takes longer than whoever waits for it would.
		{name: "signing", rules: "{step_up: {wallet.sign: true}}", pause: 4 * time.Second},
		{name: "old", rules: "{minimum_api_version: '2026_01_01'}", floor: "2026_01_01"},
		{
			name: "mfa", rules: "{minimum_api_version: '2026_01_01', mfa_actions: [wallet.waas.export]}", floor: "2026_01_01",
			actions: []issuer.Action{{Action: "wallet.waas.export", Required: true}},
		},
	}
	if files := must(filepath.Glob(filepath.Join(browser, "scenarios/*.mjs"))); len(files) != len(scenarios) {
		t.Errorf("%d scenarios are run, of %d files", len(scenarios), len(files))
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			w := newWallet(t, app, s)
			w.environment(cmp.Or(s.rules, "{}"))
			w.run()
			w.tell(node, filepath.Join(browser, "scenarios", s.name+".mjs"))
			if all := w.stdout.String() + w.stderr.String() + w.file("decisions.jsonl"); strings.Contains(all, "eyJ") {
				t.Errorf("a token is in what Stepward writes: %s", all)
			}
			t.Logf("%s took %s", s.name, time.Since(began).Round(time.Millisecond))
		})
	}
}

// scenario is one of test/browser/scenarios and its surroundings.
type scenario struct {
	name    string // of its file
	rules   string // of the environment, in the policy's data
	floor   string // of the environment, in its settings; empty is the newest
	actions []issuer.Action
	cookies bool          // sessions are kept in cookies
	pause   time.Duration // between the events of a ceremony
}

// wallet is a world with a web app, on an origin of its own, that talks to Stepward.
type wallet struct {
	*world
	scenario scenario
	pages    *httptest.Server // the app's
	page     string           // their origin
	api      string           // Stepward's, once it runs

	social *oidc.Provider
}

func newWallet(t *testing.T, app string, s scenario) *wallet {
	t.Helper()
	pages := http.NewServeMux()
	w := &wallet{scenario: s, pages: httptest.NewUnstartedServer(pages)}
	t.Cleanup(w.pages.Close)
	w.page = strings.Replace("http://"+w.pages.Listener.Addr().String(), "127.0.0.1", "localhost", 1) // WebAuthn wants a name
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))                                      // of the app's own backend
	const secret = "whoever-asks-about-MFA-tokens"
	var provider http.Handler
	network := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { provider.ServeHTTP(out, r) }))
	t.Cleanup(network.Close)
	w.social = must(oidc.New(oidc.Config{Dir: t.TempDir(), URL: network.URL, ClientID: "wallet", ClientSecret: "secret"}))
	t.Cleanup(func() { _ = w.social.Close() })
	provider = w.social.Handler()
	var storage []string
	if s.cookies {
		storage = []string{"cookie"}
	}
	w.world = newWorldOf(t, issuer.Config{
		IntrospectionSecret: secret, Audience: w.page, Algorithm: "ES256", MinimumAPIVersion: s.floor, Storage: storage, Actions: s.actions,
		Social: map[string]issuer.Social{"google": {
			Issuer: network.URL, AuthorizationURL: network.URL + oidc.PathAuthorize, TokenURL: network.URL + oidc.PathToken,
			JWKSURL: network.URL + oidc.PathKeys, ClientID: "wallet", ClientSecret: "secret",
		}},
		External: &issuer.External{Issuer: "https://backend.example", JWKSURL: publish(t, own)},
	}, func(c *backend.Config) { c.Pause, c.Origins = s.pause, []string{w.page} })
	w.write("mfa.secret", secret)

	pages.Handle("GET /app.js", http.FileServer(http.Dir(app)))
	pages.HandleFunc("GET /{$}", func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(out, `<!doctype html><title>Wallet</title><link rel=icon href=data:>
<script>settings = {apiBaseUrl: "%s/api/v0", environmentId: "%s"}</script><script type=module src=/app.js></script>`, w.api, testEnvironment)
	})
	// What a scenario knows otherwise than through the browser.
	pages.HandleFunc("GET /world/mail", func(out http.ResponseWriter, r *http.Request) {
		mail, _ := w.issuer.Mail(r.URL.Query().Get("to"))
		_ = json.NewEncoder(out).Encode(mail)
	})
	pages.HandleFunc("POST /world/assertion", func(out http.ResponseWriter, r *http.Request) {
		var about jwt.MapClaims
		if err := json.NewDecoder(r.Body).Decode(&about); err != nil {
			http.Error(out, err.Error(), http.StatusBadRequest)
			return
		}
		about["iss"], about["jti"], about["exp"] = "https://backend.example", rand.Text(), time.Now().Add(time.Minute).Unix()
		_ = json.NewEncoder(out).Encode(must(jwt.NewWithClaims(jwt.SigningMethodES256, about).SignedString(own)))
	})
	pages.HandleFunc("GET /world/counts", func(out http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(out).Encode(must(w.backend.Counts()))
	})
	pages.HandleFunc("POST /world/environment", func(out http.ResponseWriter, r *http.Request) {
		w.environment(string(must(io.ReadAll(r.Body))))
		_ = json.NewEncoder(out).Encode("written")
	})
	return w
}

// publish serves the public half of a key as a JWK Set.
func publish(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	point := must(key.PublicKey.Bytes()) // 4, then x and y of 32 bytes each
	b64 := base64.RawURLEncoding.EncodeToString
	set := fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q}]}`, b64(point[1:33]), b64(point[33:]))
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, set) }))
	t.Cleanup(server.Close)
	return server.URL
}

// environment writes the shipped policy with these rules for the environment.
func (w *wallet) environment(rules string) {
	w.t.Helper()
	w.copyPolicy(func(data string) string {
		return strings.Replace(data, "\nenvironments:\n", "\nenvironments:\n  "+testEnvironment+": "+rules+"\n", 1)
	})
}

// run starts the app, and Stepward, as a program. The backend answers preflights, as every backend of a web app does.
func (w *wallet) run() {
	w.t.Helper()
	cookie := ""
	if w.scenario.cookies {
		cookie = ", cookie: DYNAMIC_JWT_TOKEN"
	}
	door := w.program(
		// With a browser and the race detector beside it an evaluation may take longer than anybody waits in production.
		"policy: {path: policy, watch_interval: 50ms, eval_timeout: 10s}",
		"ledger_options: {reserve_timeout: 10s}",
		"upstream: "+w.origin.URL,
		"mfa: {introspection: {url: "+w.origin.URL+w.issuer.Prefix()+"/mfaTokens/introspect, bearer_file: mfa.secret}, enrolled_claim: verified_credentials}",
		"challenge: {cors: {allowed_origins: ['"+w.page+"'], allow_credentials: true}}",
		fmt.Sprintf("session: {issuer: app.dynamicauth.com/%s, audience: '%s', jwks_url: '%s%s/.well-known/jwks', algorithms: [ES256], check: {path: '/api/v0/sdk/{environmentId}/session', cache: 1s, timeout: 10s}%s}",
			testEnvironment, w.page, w.origin.URL, w.issuer.Prefix(), cookie)).door
	w.api = "http://" + strings.Replace(door, "127.0.0.1", "localhost", 1) // of the page's site: its cookies are sent
	w.social.Allow(w.api + w.issuer.Prefix() + "/providers/google/redirect")
	w.pages.Start()
}

// tell runs a scenario and fails with what it says went wrong.
func (w *wallet) tell(node, scenario string) {
	w.t.Helper()
	about := must(json.Marshal(map[string]string{"page": w.page, "api": w.api, "environment": testEnvironment}))
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, scenario, string(about))
	var stderr bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &stderr, 10*time.Second
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		var said struct {
			Step, Failed      string
			Requests, Console []string
		}
		switch err := json.Unmarshal([]byte(line), &said); {
		case err != nil:
			w.t.Errorf("the scenario says %q: %v", line, err)
		case said.Failed != "":
			w.t.Errorf("%s\nlast requests:\n  %s\nconsole:\n  %s", said.Failed, strings.Join(said.Requests, "\n  "), strings.Join(said.Console, "\n  "))
		default:
			w.t.Log(said.Step)
		}
	}
	if err != nil && !w.t.Failed() || stderr.Len() > 0 {
		w.t.Errorf("%s: %v\n%s", filepath.Base(scenario), err, &stderr)
	}
}
