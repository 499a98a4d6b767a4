package backend_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/issuer"
)

const environment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"

// world is a backend behind a real listener.
type world struct {
	t       *testing.T
	backend *backend.Backend
	url     string
}

func newWorld(t *testing.T, edits ...func(*backend.Config)) *world {
	t.Helper()
	cfg := backend.Config{Dir: t.TempDir(), Environment: environment}
	for _, e := range edits {
		e(&cfg)
	}
	b, err := backend.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(b.Handler())
	t.Cleanup(func() {
		server.Close()
		_ = b.Close()
	})
	return &world{t, b, server.URL}
}

// answer is every member of every answer that the tests look at.
type answer struct {
	Status int `json:"-"`

	Error, Code string
	Reason      string
	Intent      string

	RoomID, WalletID, AccountAddress string
	Signature, EncryptedPrivateKey   string
}

type m map[string]any

// send makes a request the way the gate passes it on; user is the verified subject, empty for none.
func (w *world) send(user, method, path string, body any, headers ...string) *http.Response {
	w.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+w.backend.Prefix()+path, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	if user != "" {
		r.Header.Set("Stepward-Subject", user)
		r.Header.Set("Stepward-Scopes", "user:basic")
	}
	for n := 0; n+1 < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func (w *world) do(user, method, path string, body any, headers ...string) answer {
	w.t.Helper()
	res := w.send(user, method, path, body, headers...)
	a := answer{Status: res.StatusCode}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(raw) > 0 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(raw, &a); err != nil && raw[0] == '{' {
			w.t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return a
}

func (w *world) wallet(user string) backend.Wallet {
	w.t.Helper()
	wallet, err := w.backend.CreateWallet(user)
	if err != nil {
		w.t.Fatal(err)
	}
	return wallet
}

func refuse(t *testing.T, got answer, status int, code string) {
	t.Helper()
	if got.Status != status || got.Code != code {
		t.Errorf("got %d %q, want %d %q", got.Status, got.Code, status, code)
	}
}

func TestPublicReadsNeedNobody(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/healthcheck", "/networks", "/exchangeRates"} {
		if got := w.do("", "GET", path, nil); got.Status != 200 {
			t.Errorf("%s: got %d", path, got.Status)
		}
	}
}

func TestEverythingElseNeedsASubject(t *testing.T) {
	w := newWorld(t)
	for _, call := range []string{
		"DELETE /users", "GET /businessAccounts", "POST /businessAccounts/a/transferOwnership", "POST /waas/create",
		"POST /waas/w/signMessage", "POST /waas/w/privateKey/export", "POST /waas/w/refresh", "GET /waas/byWalletAddress/a",
		"DELETE /users/embeddedWallets/w/softDelete", "PUT /users/embeddedWallets/w/restore",
	} {
		method, path, _ := strings.Cut(call, " ")
		refuse(t, w.do("", method, path, m{}), 401, "unauthorized")
	}
}

// ids are of the wallets that SDKs are told of.
func (w *world) ids(user string) []string {
	w.t.Helper()
	credentials, err := w.backend.Credentials(user)
	if err != nil {
		w.t.Fatal(err)
	}
	ids := []string{}
	for _, c := range credentials {
		if c["format"] != "blockchain" || c["wallet_provider"] != "embeddedWallet" || c["public_identifier"] == "" {
			w.t.Errorf("got credential %v", c)
		}
		ids = append(ids, c["embedded_wallet_id"].(string))
	}
	return ids
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	first, second := w.wallet("ann"), w.wallet("ann")
	if got := w.ids("ann"); !slices.Equal(got, []string{first.ID, second.ID}) {
		t.Errorf("got %v", got)
	}
	if got := w.do("ann", "DELETE", "/users/embeddedWallets/"+first.ID+"/softDelete", nil); got.Status >= 300 {
		t.Fatalf("delete: got %d", got.Status)
	}
	if got := w.ids("ann"); !slices.Equal(got, []string{second.ID}) {
		t.Errorf("after a deletion: got %v", got)
	}
	if got := w.ids("bob"); len(got) != 0 {
		t.Errorf("bob: got %v", got)
	}
}

func TestUsersAreForgottenByBoth(t *testing.T) {
	var asked string
	w := newWorld(t, func(c *backend.Config) {
		c.Next = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			asked = r.Method + " " + r.URL.Path
			out.WriteHeader(http.StatusNoContent)
		})
	})
	wallet := w.wallet("ann")
	if got := w.do("ann", "DELETE", "/users", nil); got.Status != 204 || asked != "DELETE "+w.backend.Prefix()+"/users" {
		t.Errorf("got %d, the issuer was asked %q", got.Status, asked)
	}
	if got := w.ids("ann"); len(got) != 0 {
		t.Errorf("after the deletion: got %v", got)
	}
	refuse(t, w.do("ann", "POST", "/waas/"+wallet.ID+"/signMessage", m{"message": "x"}), 404, "not_found")
}

func TestPagesOfConfiguredOriginsMayCall(t *testing.T) {
	const origin = "http://localhost:5173"
	w := newWorld(t, func(c *backend.Config) { c.Origins = []string{origin} })
	preflight := func(from string) http.Header {
		return w.send("", "OPTIONS", "/waas/w/signMessage", nil, "Origin", from, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,content-type,x-dyn-elevated-access-token,x-dyn-version").Header
	}
	got := preflight(origin)
	if got.Get("Access-Control-Allow-Origin") != origin || got.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(got.Get("Access-Control-Allow-Headers"), "x-dyn-elevated-access-token") {
		t.Errorf("preflight: got %v", got)
	}
	if got := preflight("http://evil.example").Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("another origin: got %q", got)
	}
	if got := w.send("", "GET", "/networks", nil, "Origin", origin).Header; got.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("request: got %v", got)
	}
	if got := w.backend.Executions(w.backend.Prefix() + "/waas/w/signMessage"); got != 0 {
		t.Errorf("a preflight counts as %d executions", got)
	}
}

func TestAGovernedChangeIsAskedForTwice(t *testing.T) {
	w := newWorld(t)
	const path = "/businessAccounts/acme/transferOwnership"
	first := w.do("ann", "POST", path, m{"newOwnerUserId": "bob"})
	if first.Status != 202 || first.Reason != "INTENT_REQUIRED" || first.Intent == "" {
		t.Fatalf("got %+v", first)
	}
	refuse(t, w.do("ann", "POST", "/businessAccounts/other/transferOwnership", m{"intent": first.Intent}), 422, "invalid_intent")
	if got := w.do("ann", "POST", path, m{"intent": first.Intent}); got.Status != 200 {
		t.Errorf("got %+v", got)
	}
	refuse(t, w.do("ann", "POST", path, m{"intent": first.Intent}), 422, "invalid_intent")
}

func TestBodies(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{"none": "", "no JSON": "{", "wrong type": `{"chain":1}`} {
		t.Run(name, func(t *testing.T) { refuse(t, w.do("ann", "POST", "/waas/create", body), 400, "bad_request") })
	}
	large := `{"chain":"` + strings.Repeat("a", 2<<20) + `"}`
	refuse(t, w.do("ann", "POST", "/waas/create", large), 413, "body_too_large")
}

func TestEveryRequestIsCounted(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	export := "/waas/" + wallet.ID + "/privateKey/export"
	w.do("", "POST", export, m{})
	w.do("ann", "POST", export, m{"exportId": "nonsense"})
	w.do("ann", "GET", "/users", nil)
	w.do("ann", "DELETE", "/users", nil)
	w.do("ann", "GET", "/nowhere", nil)
	for path, want := range map[string]int{export: 2, "/users": 2, "/nowhere": 1, "/networks": 0} {
		if got := w.backend.Executions(w.backend.Prefix() + path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	counts, err := w.backend.Counts()
	if err != nil || counts["DELETE "+w.backend.Prefix()+"/users"] != 1 || len(counts) != 4 {
		t.Errorf("got %v, %v", counts, err)
	}
}

func TestTheIssuerAnswersWhatTheBackendDoesNot(t *testing.T) {
	i, err := issuer.New(issuer.Config{Dir: t.TempDir(), Environment: environment, Audience: "https://wallet.example", Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	w := newWorld(t, func(c *backend.Config) { c.Next = i.Handler() })
	if got := w.do("", "GET", "/.well-known/jwks", nil); got.Status != 200 {
		t.Errorf("keys: got %d", got.Status)
	}
	refuse(t, w.do("ann", "POST", "/stepUp/check", m{"scope": "wallet:export"}), 401, "unauthorized")
	if got := w.backend.Executions(w.backend.Prefix() + "/stepUp/check"); got != 1 {
		t.Errorf("got %d", got)
	}
}

func TestTwoEnvironmentsOnOneHost(t *testing.T) {
	host := http.NewServeMux()
	server := httptest.NewServer(host)
	defer server.Close()
	floors := map[string]string{environment: "2026_04_01", "7c0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b22": "2026_01_01"}
	for id, floor := range floors {
		dir := t.TempDir()
		i, err := issuer.New(issuer.Config{Dir: dir, Environment: id, Audience: "https://wallet.example", Algorithm: "ES256", MinimumAPIVersion: floor})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		b, err := backend.New(backend.Config{Dir: dir, Environment: id, Next: i.Handler()})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		host.Handle(b.Prefix()+"/", b.Handler())
	}
	for id, floor := range floors {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v0/sdk/"+id+"/settings", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			SDK struct{ MinAPIVersion string }
		}
		err = json.NewDecoder(res.Body).Decode(&got)
		if _ = res.Body.Close(); err != nil || got.SDK.MinAPIVersion != floor {
			t.Errorf("%s: got %q, %v, want %q", id, got.SDK.MinAPIVersion, err, floor)
		}
	}
}

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(c *backend.Config) { c.Dir = dir })
	wallet := w.wallet("ann")
	w.do("ann", "GET", "/businessAccounts", nil)
	if err := w.backend.Close(); err != nil {
		t.Fatal(err)
	}
	again := newWorld(t, func(c *backend.Config) { c.Dir = dir })
	if got := again.ids("ann"); !slices.Equal(got, []string{wallet.ID}) {
		t.Errorf("got %v", got)
	}
	if got := again.backend.Executions(again.backend.Prefix() + "/businessAccounts"); got != 1 {
		t.Errorf("executions: got %d, want 1", got)
	}
}

func TestConfigurations(t *testing.T) {
	held := t.TempDir()
	newWorld(t, func(c *backend.Config) { c.Dir = held })
	tests := map[string]backend.Config{
		"no directory":      {Environment: environment},
		"missing directory": {Environment: environment, Dir: t.TempDir() + "/missing"},
		"directory in use":  {Environment: environment, Dir: held},
		"no environment":    {Dir: t.TempDir()},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			if b, err := backend.New(cfg); err == nil {
				_ = b.Close()
				t.Error("New took it")
			}
		})
	}
}

func TestAClosedBackendCountsNothing(t *testing.T) {
	w := newWorld(t)
	if err := w.backend.Close(); err != nil {
		t.Fatal(err)
	}
	refuse(t, w.do("ann", "GET", "/users", nil), 500, "internal")
	if got := w.backend.Executions("/"); got != -1 {
		t.Errorf("got %d, want -1", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			if got := w.do("ann", "POST", "/waas/create", m{"chain": "SVM"}); got.Status != 200 || got.WalletID == "" {
				t.Errorf("got %+v", got)
			}
		})
	}
	wait.Wait()
	if got := len(w.ids("ann")); got != 32 {
		t.Errorf("got %d wallets, want 32", got)
	}
	if got := w.backend.Executions(w.backend.Prefix() + "/waas/create"); got != 32 {
		t.Errorf("got %d executions, want 32", got)
	}
}
