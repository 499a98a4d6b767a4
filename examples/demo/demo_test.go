package demo_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/backend"
	"github.com/stepward/stepward/examples/demo"
	"github.com/stepward/stepward/examples/issuer"
)

const environment = "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11"

// The story with Stepward in it is tested where Stepward is: in cmd/stepward. Here it must notice what stands there instead.

// tell tells the story to a door made from the handler of a real backend and issuer.
func tell(t *testing.T, door func(next http.Handler) http.Handler) (string, error) {
	t.Helper()
	dir := t.TempDir()
	iss, err := issuer.New(issuer.Config{Dir: dir, Environment: environment, Audience: "https://wallet.example", Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	defer iss.Close()
	wallets, err := backend.New(backend.Config{Dir: dir, Environment: environment, Next: iss.Handler()})
	if err != nil {
		t.Fatal(err)
	}
	defer wallets.Close()
	server := httptest.NewServer(door(wallets.Handler()))
	defer server.Close()
	var out bytes.Buffer
	err = demo.Tell(t.Context(), demo.Config{
		Door: server.URL, Admin: server.URL, Environment: demo.Environment{ID: environment, Mail: iss.Mail, Executions: wallets.Executions},
		Decisions: func() ([]byte, error) { return nil, nil }, Out: &out,
	})
	return out.String(), err
}

// open is a gate that believes every session and asks for nothing.
func open(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var claims struct{ Sub string }
		if parts := strings.Split(r.Header.Get("Authorization"), "."); len(parts) == 3 {
			raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
			_ = json.Unmarshal(raw, &claims)
		}
		r.Header.Set("Stepward-Subject", claims.Sub)
		next.ServeHTTP(w, r)
	})
}

func TestTheStoryEndsAtTheFirstAnswerThatIsWrong(t *testing.T) {
	rows := []struct {
		name  string
		door  func(http.Handler) http.Handler
		wants string
	}{
		{
			"a gate that lets everything pass", open,
			"step 3, She asks for its private key: a session alone is not enough: POST /waas/",
		},
		{
			"a server that answers 200 to everything",
			func(http.Handler) http.Handler { return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}) },
			"step 1, Ann signs up: expected a mail to ann@wallet.example, none came",
		},
		{
			"no gate", func(next http.Handler) http.Handler { return next },
			"step 2, She makes a wallet: POST /waas/create: expected 200 OK, got 401 Unauthorized unauthorized",
		},
		{
			"a server that breaks off",
			func(http.Handler) http.Handler {
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			},
			"step 1, Ann signs up: POST /emailVerifications/create: expected an answer: ",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			out, err := tell(t, row.door)
			if err == nil || !strings.HasPrefix(err.Error(), row.wants) {
				t.Errorf("got %v, want %s", err, row.wants)
			}
			if !strings.Contains(out, "\n   WRONG ") || strings.Contains(out, "went as they should") {
				t.Errorf("got\n%s", out)
			}
		})
	}
	out, err := tell(t, open)
	if want := "expected 403 Forbidden elevated_access_token_required, got 200 OK"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, secret := range []string{"eyJ", `"otpauth`} {
		if strings.Contains(out, secret) {
			t.Errorf("printed %s", secret)
		}
	}
}
