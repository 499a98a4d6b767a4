package oidc_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/oidc"
)

const redirect = "https://wallet.example/back"

type world struct {
	t        *testing.T
	provider *oidc.Provider
	url      string
	ahead    atomic.Int64 // of the clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.provider, err = oidc.New(oidc.Config{
		Issuer: "https://social.example", ClientID: "wallet", ClientSecret: "secret", Redirects: []string{redirect},
		Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.provider.Handler())
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func authorization(edit ...string) url.Values {
	q := url.Values{"client_id": {"wallet"}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {"s"}, "nonce": {"n"}}
	for i := 0; i < len(edit); i += 2 {
		q.Set(edit[i], edit[i+1])
	}
	return q
}

// consent presses the button and returns the code, or "" and the status.
func (w *world) consent(q url.Values) (string, int) {
	w.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.PostForm(w.url+"/authorize?"+q.Encode(), url.Values{"email": {"ann@social.example"}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode == http.StatusSeeOther && (!strings.HasPrefix(back.String(), redirect) || back.Query().Get("state") != "s") {
		w.t.Errorf("sent to %s", back)
	}
	return back.Query().Get("code"), res.StatusCode
}

// exchange returns the ID token, or "".
func (w *world) exchange(code string, edit ...string) string {
	w.t.Helper()
	form := url.Values{"client_id": {"wallet"}, "client_secret": {"secret"}, "redirect_uri": {redirect}, "code": {code}}
	for i := 0; i < len(edit); i += 2 {
		form.Set(edit[i], edit[i+1])
	}
	res, err := http.PostForm(w.url+"/token", form)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	var a struct {
		ID string `json:"id_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || (a.ID != "") != (res.StatusCode == http.StatusOK) {
		w.t.Fatalf("%d, %v", res.StatusCode, err)
	}
	return a.ID
}

func TestTheFlow(t *testing.T) {
	w := newWorld(t)
	code, _ := w.consent(authorization())
	raw := w.exchange(code)
	var claims jwt.MapClaims
	_, err := jwt.NewParser(jwt.WithIssuer("https://social.example"), jwt.WithAudience("wallet"), jwt.WithExpirationRequired()).ParseWithClaims(raw, &claims,
		func(*jwt.Token) (any, error) { return w.provider.Key(), nil })
	if err != nil || claims["sub"] != "ann@social.example" || claims["nonce"] != "n" {
		t.Errorf("%v, %v", claims, err)
	}
	if w.exchange(code) != "" {
		t.Error("a code works twice")
	}
}

func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, q := range map[string]url.Values{
		"another client": authorization("client_id", "other"), "another page": authorization("redirect_uri", redirect+"/x"),
		"another type": authorization("response_type", "token"), "a plain challenge": authorization("code_challenge", "x", "code_challenge_method", "plain"),
	} {
		if code, status := w.consent(q); code != "" || status != http.StatusBadRequest {
			t.Errorf("%s: %d %q", name, status, code)
		}
		res, err := http.Get(w.url + "/authorize?" + q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: the page is shown", name)
		}
	}
	for name, edit := range map[string][]string{
		"a wrong secret": {"client_secret", "x"}, "another page": {"redirect_uri", redirect + "/x"}, "another client": {"client_id", "x"}, "another code": {"code", "x"},
	} {
		code, _ := w.consent(authorization())
		if w.exchange(code, edit...) != "" {
			t.Errorf("%s: a token", name)
		}
	}
	code, _ := w.consent(authorization())
	w.ahead.Store(int64(2 * time.Minute))
	if w.exchange(code) != "" {
		t.Error("an old code works")
	}
}

func TestPKCE(t *testing.T) {
	w := newWorld(t)
	const verifier = "0123456789012345678901234567890123456789abc"
	sum := sha256.Sum256([]byte(verifier))
	q := authorization("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]), "code_challenge_method", "S256")
	code, _ := w.consent(q)
	if w.exchange(code, "code_verifier", "another") != "" {
		t.Error("another verifier: a token")
	}
	code, _ = w.consent(q)
	if w.exchange(code, "code_verifier", verifier) == "" {
		t.Error("the right verifier: no token")
	}
}
