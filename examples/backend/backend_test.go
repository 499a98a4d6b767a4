package backend_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
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

	ID, Alias, Scope    string
	VerifiedCredentials []struct{ ID, Address, EmbeddedWalletID string }
	User                *answer

	RoomID, WalletID, AccountAddress string
	Signature, EncryptedPrivateKey   string

	SDK struct{ MinAPIVersion string }
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
	for _, path := range []string{"/healthcheck", "/settings", "/networks", "/exchangeRates"} {
		if got := w.do("", "GET", path, nil); got.Status != 200 {
			t.Errorf("%s: got %d", path, got.Status)
		}
	}
	if got := w.do("", "GET", "/settings", nil).SDK.MinAPIVersion; got != "2026_04_01" {
		t.Errorf("minApiVersion: got %q", got)
	}
}

func TestEverythingElseNeedsASubject(t *testing.T) {
	w := newWorld(t)
	for _, call := range []string{
		"GET /users", "PUT /users", "DELETE /users", "GET /businessAccounts",
		"POST /businessAccounts/a/transferOwnership", "POST /verify/link", "POST /verify/unlink", "POST /waas/create",
		"POST /waas/w/signMessage", "POST /waas/w/privateKey/export", "POST /waas/w/refresh", "GET /waas/byWalletAddress/a",
		"DELETE /users/embeddedWallets/w/softDelete", "PUT /users/embeddedWallets/w/restore",
	} {
		method, path, _ := strings.Cut(call, " ")
		refuse(t, w.do("", method, path, m{}), 401, "unauthorized")
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	link := m{"publicWalletAddress": "0xabc", "chain": "eip155", "walletName": "metamask"}
	linked := w.do("ann", "POST", "/verify/link", link)
	if linked.Status != 200 || len(linked.User.VerifiedCredentials) != 1 {
		t.Fatalf("link: got %+v", linked)
	}
	refuse(t, w.do("ann", "POST", "/verify/link", link), 422, "reassign_wallet_error")
	refuse(t, w.do("ann", "POST", "/verify/link", m{}), 422, "invalid_verification")

	id := linked.User.VerifiedCredentials[0].ID
	refuse(t, w.do("bob", "POST", "/verify/unlink", m{"walletId": id}), 422, "invalid_unlink_request")
	for _, name := range []string{"walletId", "verifiedCredentialId", "verifiedCrentialId", "primaryWalletId"} {
		got := w.do("ann", "POST", "/verify/unlink", m{name: id})
		if got.Status != 200 || len(got.User.VerifiedCredentials) != 0 {
			t.Errorf("unlink by %s: got %+v", name, got)
		}
		id = w.do("ann", "POST", "/verify/link", link).User.VerifiedCredentials[0].ID
	}
}

func TestUsers(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	if got := w.do("ann", "PUT", "/users", m{"alias": "Annie", "unknown": 1}); got.Status != 200 || got.User.Alias != "Annie" {
		t.Errorf("update: got %+v", got)
	}
	got := w.do("ann", "GET", "/users", nil)
	if got.ID != "ann" || got.Alias != "Annie" || got.Scope != "user:basic" || len(got.VerifiedCredentials) != 1 {
		t.Errorf("got %+v", got)
	}
	if got := w.do("ann", "DELETE", "/users", nil); got.Status != 204 {
		t.Errorf("delete: got %d", got.Status)
	}
	if got := w.do("ann", "GET", "/users", nil); got.Alias != "" || len(got.VerifiedCredentials) != 0 {
		t.Errorf("after delete: got %+v", got)
	}
	refuse(t, w.do("ann", "POST", "/waas/"+wallet.ID+"/signMessage", m{"message": "x"}), 404, "not_found")
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
	for name, body := range map[string]string{"none": "", "no JSON": "{", "wrong type": `{"alias":1}`} {
		t.Run(name, func(t *testing.T) { refuse(t, w.do("ann", "PUT", "/users", body), 400, "bad_request") })
	}
	large := `{"alias":"` + strings.Repeat("a", 2<<20) + `"}`
	refuse(t, w.do("ann", "PUT", "/users", large), 413, "body_too_large")
}

func TestEveryRequestIsCounted(t *testing.T) {
	w := newWorld(t)
	wallet := w.wallet("ann")
	export := "/waas/" + wallet.ID + "/privateKey/export"
	w.do("", "POST", export, m{})
	w.do("ann", "POST", export, m{"exportId": "nonsense"})
	w.do("ann", "GET", "/users", nil)
	w.do("ann", "PUT", "/users", m{})
	w.do("ann", "GET", "/nowhere", nil)
	for path, want := range map[string]int{export: 2, "/users": 2, "/nowhere": 1, "/settings": 0} {
		if got := w.backend.Executions(w.backend.Prefix() + path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	counts, err := w.backend.Counts()
	if err != nil || counts["PUT "+w.backend.Prefix()+"/users"] != 1 || len(counts) != 4 {
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

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(c *backend.Config) { c.Dir = dir })
	wallet := w.wallet("ann")
	w.do("ann", "GET", "/users", nil)
	if err := w.backend.Close(); err != nil {
		t.Fatal(err)
	}
	again := newWorld(t, func(c *backend.Config) { c.Dir = dir })
	if got := again.do("ann", "GET", "/users", nil).VerifiedCredentials; len(got) != 1 || got[0].EmbeddedWalletID != wallet.ID {
		t.Errorf("got %+v", got)
	}
	if got := again.backend.Executions(again.backend.Prefix() + "/users"); got != 2 {
		t.Errorf("executions: got %d, want 2", got)
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
	if got := len(w.do("ann", "GET", "/users", nil).VerifiedCredentials); got != 32 {
		t.Errorf("got %d wallets, want 32", got)
	}
	if got := w.backend.Executions(w.backend.Prefix() + "/waas/create"); got != 32 {
		t.Errorf("got %d executions, want 32", got)
	}
}
