package listen_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stepward/stepward/internal/listen"
	"github.com/stepward/stepward/internal/testkit"
)

// sink is a log that many connections may write to.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func TestPanicsAreLoggedWithoutTokens(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
	var out sink
	s := start(t, listen.Config{
		Logger: slog.New(slog.NewTextHandler(&out, nil)),
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			panic("cannot handle " + r.Header.Get("Authorization") + " with " + jwt)
		}),
	})
	c := dial(t, s)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer opaque-secret\r\n\r\n")
	_, _ = io.ReadAll(c) // the connection is closed after the line is written
	got := out.String()
	if !strings.Contains(got, `msg="handler panicked"`) || !strings.Contains(got, "errorlog_test.go") {
		t.Errorf("no panic with a stack in %q", got)
	}
	for _, secret := range []string{"opaque-secret", "eyJ", "c2lnbmF0dXJl"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is in the log: %q", secret, got)
		}
	}
}

func TestClientsCannotFloodTheLog(t *testing.T) {
	var out sink
	s := start(t, listen.Config{
		Logger:  slog.New(slog.NewTextHandler(&out, nil)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }),
	})
	for range 50 {
		c := dial(t, s)
		send(t, c, get)
		_, _ = io.ReadAll(c)
	}
	if got := strings.Count(out.String(), "handler panicked"); got != 30 {
		t.Errorf("%d lines for 50 panics in a minute, want 30", got)
	}
}

func TestBadHandshakesAreBelowInfo(t *testing.T) {
	a := testkit.NewAuthority(t)
	f := newFiles(t, a, "one")
	var out sink
	s := start(t, listen.Config{TLS: &f.TLSConfig, Logger: slog.New(slog.NewTextHandler(&out, nil)), Handler: say("x")})
	c := dial(t, s)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_, _ = io.ReadAll(c)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "" {
		t.Errorf("a client could write to the log: %q", got)
	}
}
