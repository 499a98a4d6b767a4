package issuer_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/stepward/stepward/examples/issuer"
)

const (
	environment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"
	audience    = "https://wallet.example"
	demoCode    = "424242"

	introspectionSecret = "whoever-asks"
)

// world is an issuer behind a real listener, with a clock that only moves when told to.
type world struct {
	t      *testing.T
	issuer *issuer.Issuer
	url    string

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, edit ...func(*issuer.Config)) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)}
	cfg := issuer.Config{Dir: t.TempDir(), Environment: environment, Audience: audience, Algorithm: "ES256", Code: demoCode, Now: w.clock,
		IntrospectionSecret: introspectionSecret}
	for _, e := range edit {
		e(&cfg)
	}
	w.issuer = open(t, cfg)
	server := httptest.NewServer(w.issuer.Handler())
	t.Cleanup(server.Close)
	w.url = server.URL + w.issuer.Prefix()
	return w
}

func open(t *testing.T, cfg issuer.Config) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// answer is every member of every answer that the tests look at.
type answer struct {
	Status  int            `json:"-"`
	Cookies []*http.Cookie `json:"-"`

	Error, Code string

	JWT, MinifiedJWT, ElevatedAccessToken string
	ExpiresAt                             int64
	User                                  struct {
		ID, Email, Scope, SessionID string
		NewUser                     bool
		VerifiedCredentials         []credential

		Alias, MFABackupCodeAcknowledgement, PhoneNumber string
	}
	MFAToken, NextView string

	Alias, Scope, SessionID, ProjectEnvironmentID, LastVerifiedCredentialID string
	VerifiedCredentials                                                     []credential

	SDK                    struct{ MinAPIVersion string }
	Chains, KYC, Providers []any
	Security               struct {
		DeviceRegistrationRequired bool
		MFA                        struct{ Actions, Methods []any }
		Auth                       struct{ Storage []string }
		ExternalAuth               struct {
			Enabled      bool
			Iss, JWKSURL string
		}
	}

	RecoveryCodes             []string
	UserHasVerifiedMFAMethods bool
	Passkeys                  []struct{ ID, CredentialID, CreatedAt string }

	Challenge, RPID, Attestation string
	RP                           struct{ ID string }
	Timeout                      int
	PubKeyCredParams             []any
	ExcludeCredentials           []any
	AllowCredentials             []any

	VerificationUUID, Email string
	Nonces                  []string
	Nonce                   string

	PhoneNumber, ISOCountryCode string

	ID, Secret, URI string
	Verified        bool
	Count           int
	Devices         []struct {
		ID       string
		Verified bool
	}
	DeviceRegistrations []struct {
		ID              string
		IsCurrentDevice bool
	}
	CurrentDeviceRevoked bool

	IsRequired          bool
	Credentials         []struct{ ID, Format string }
	DefaultCredentialID string
}

type credential struct{ ID, Format, Email, Address string }

type headers func(http.Header)

func bearer(token string) headers {
	return func(h http.Header) { h.Set("Authorization", "Bearer "+token) }
}

func header(name, value string) headers { return func(h http.Header) { h.Set(name, value) } }

func (w *world) do(method, path string, body any, edits ...headers) answer {
	w.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			w.t.Error(err)
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, reader)
	if err != nil {
		w.t.Error(err)
		return answer{}
	}
	for _, e := range edits {
		e(r.Header)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Error(err)
		return answer{}
	}
	defer res.Body.Close()
	a := answer{Status: res.StatusCode, Cookies: res.Cookies()}
	if res.StatusCode == http.StatusNoContent {
		return a
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		w.t.Errorf("%s %s: %v", method, path, err)
	}
	return a
}

type m map[string]any

// proof asks for a code to an address and returns the body that proves it.
func (w *world) proof(email string) m {
	w.t.Helper()
	a := w.do("POST", "/emailVerifications/create", m{"email": email})
	if a.Status != 200 || a.VerificationUUID == "" {
		w.t.Fatalf("create email verification: %d %s", a.Status, a.Code)
	}
	return m{"verificationUUID": a.VerificationUUID, "verificationToken": demoCode}
}

// from proves with a fresh nonce that a request comes from d.
func (w *world) from(d *issuer.Device) headers {
	w.t.Helper()
	nonces := w.do("GET", "/nonces?count=1", nil).Nonces
	return func(h http.Header) {
		if err := d.Sign(h, nonces[0]); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) signIn(email string, edits ...headers) answer {
	w.t.Helper()
	a := w.do("POST", "/emailVerifications/signin", w.proof(email), edits...)
	if a.Status != 200 {
		w.t.Fatalf("sign in: %d %s", a.Status, a.Code)
	}
	return a
}

func (w *world) code(secret string) string {
	w.t.Helper()
	code, err := totp.GenerateCode(secret, w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

func refuse(t *testing.T, got answer, status int, code string) {
	t.Helper()
	if got.Status != status || got.Code != code {
		t.Errorf("got %d %q, want %d %q", got.Status, got.Code, status, code)
	}
}

// introspect asks what an MFA token is worth, as the gate does.
func (w *world) introspect(form string) m {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/mfaTokens/introspect", strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+introspectionSecret)
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer := m{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		w.t.Error(err)
	}
	return answer
}

// challengeOf is S256 of RFC 7636 section 4.2.
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return b64(sum[:])
}
