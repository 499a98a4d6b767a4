package token_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/token"
)

// publisher is an issuer's server for its JWK Set: a real one, on loopback.
type publisher struct {
	*httptest.Server
	fetches atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]
}

func newPublisher(t testing.TB, keys ...signer) *publisher {
	t.Helper()
	p := &publisher{}
	p.publish(keys...)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		(*p.handler.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) publish(keys ...signer) { p.say(http.StatusOK, setOf(keys...)) }

func (p *publisher) say(status int, body string) {
	p.do(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

func (p *publisher) do(h http.HandlerFunc) { p.handler.Store(&h) }

// follower is a verifier that gets its keys from a publisher, with a clock set by hand.
type follower struct {
	*token.Verifier
	keys  *token.Keys
	clock *clock
}

func newFollower(t testing.TB, address string, edits ...func(*token.KeysConfig)) *follower {
	t.Helper()
	f := &follower{clock: &clock{}}
	config := token.KeysConfig{URL: address, Now: f.clock.now}
	for _, edit := range edits {
		edit(&config)
	}
	keys, err := token.NewKeys(config)
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(t, token.Session)
	c.Issuers[0].Keys, c.Now = keys, f.clock.now
	f.keys, f.Verifier = keys, newVerifier(t, c)
	return f
}

// expect verifies a session token of that signer.
func (f *follower) expect(t *testing.T, s signer, kind string) {
	t.Helper()
	c := sessionClaims().with("exp", start.Add(30*24*time.Hour).Unix())
	raw := s.token(c)
	got, err := f.Verify(t.Context(), raw)
	expect(t, raw, got, err, kind, "")
}

func (p *publisher) expectFetches(t *testing.T, want int64) {
	t.Helper()
	if got := p.fetches.Load(); got != want {
		t.Errorf("got %d fetches, want %d", got, want)
	}
}

func TestTheFirstTokenFetches(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	if err := f.keys.Ready(); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("before: got %v", err)
	}
	p.expectFetches(t, 0)
	f.expect(t, one, "ok")
	f.expect(t, one, "ok")
	p.expectFetches(t, 1)
	if err := f.keys.Ready(); err != nil {
		t.Errorf("after: %v", err)
	}
	if s := f.keys.Stats(); s.Keys != 1 || s.Ignored != 0 || !s.Fetched.Equal(start) || s.Generation != 1 || s.LastError != nil {
		t.Errorf("got %+v", s)
	}
}

func TestTheRequest(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t)
	var got *http.Request
	p.do(func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = w.Write([]byte(setOf(one)))
	})
	f := newFollower(t, p.URL+"/api/v0/sdk/e/.well-known/jwks?v=1")
	f.expect(t, one, "ok")
	if got.Method != http.MethodGet || got.RequestURI != "/api/v0/sdk/e/.well-known/jwks?v=1" {
		t.Errorf("got %s %s", got.Method, got.RequestURI)
	}
	if accept := got.Header.Get("Accept"); !strings.Contains(accept, "application/json") {
		t.Errorf("got Accept %q", accept)
	}
	for _, name := range []string{"Authorization", "Cookie", "Accept-Encoding"} {
		if v := got.Header.Get(name); v != "" {
			t.Errorf("got %s %q", name, v)
		}
	}
}

// TestRotation is the life of two keys: the second appears, the first goes.
func TestRotation(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, one, "ok")
	f.expect(t, two, "invalid") // within MinRefresh: not asked again
	p.expectFetches(t, 1)

	p.publish(one, two)
	f.expect(t, two, "invalid")
	p.expectFetches(t, 1)
	f.clock.pass(15 * time.Second)
	f.expect(t, two, "ok")
	f.expect(t, one, "ok")
	p.expectFetches(t, 2)
	if s := f.keys.Stats(); s.Generation != 1 || s.Keys != 2 {
		t.Errorf("a new key withdrew the old: %+v", s)
	}

	p.publish(two)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, one, "invalid") // it was proven before, and remembered
	f.expect(t, two, "ok")
	if s := f.keys.Stats(); s.Generation != 2 || s.Keys != 1 {
		t.Errorf("got %+v", s)
	}
}

// TestAKidThatChangesItsKey: the old key's tokens stop with the refresh, remembered or not.
func TestAKidThatChangesItsKey(t *testing.T) {
	before, after := newSigner("k"), newSigner("k")
	p := newPublisher(t, before)
	f := newFollower(t, p.URL)
	f.expect(t, before, "ok")
	p.publish(after)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, before, "invalid")
	f.expect(t, after, "ok")
}

func TestAKeyThatChangesItsAlgorithm(t *testing.T) {
	before := signer{"k", "RS256", ring()["RS256"].private}
	p := newPublisher(t, before)
	f := newFollower(t, p.URL)
	f.expect(t, before, "ok")
	p.publish(signer{"k", "RS512", before.private})
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, before, "invalid")
}

// TestUnknownKids: a kid that the issuer, asked after the question, did not know is not asked for again for four
// MinRefresh, and many of them cause one fetch in each.
func TestUnknownKids(t *testing.T) {
	one, ghost := newSigner("one"), newSigner("ghost")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, ghost, "invalid")
	p.expectFetches(t, 1)
	for range 3 {
		f.clock.pass(15 * time.Second)
		f.expect(t, ghost, "invalid")
	}
	p.expectFetches(t, 1)
	for _, kid := range []string{"a", "b", "c", "d"} {
		f.expect(t, newSigner(kid), "invalid")
	}
	p.expectFetches(t, 2)
	f.clock.pass(15 * time.Second)
	f.expect(t, ghost, "invalid")
	p.expectFetches(t, 3)

	// The memory does not stand in the way of a key that was fetched for another reason.
	p.publish(one, ghost)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, ghost, "ok")
}

// TestTogether: 64 callers that need keys cause one fetch, of which all have the use.
func TestTogether(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t)
	release := make(chan struct{})
	p.do(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = w.Write([]byte(setOf(one)))
	})
	f := newFollower(t, p.URL)
	raw := one.token(sessionClaims())
	var all sync.WaitGroup
	var ok atomic.Int64
	for range 64 {
		all.Go(func() {
			if _, err := f.Verify(context.Background(), raw); err == nil {
				ok.Add(1)
			}
		})
	}
	for p.fetches.Load() == 0 {
		runtime.Gosched()
	}
	close(release)
	all.Wait()
	if ok.Load() != 64 {
		t.Errorf("%d of 64 were answered", ok.Load())
	}
	p.expectFetches(t, 1)
}

// TestTheFirstCallerLeaves: whoever began the fetch may go; those who joined get their answer.
func TestTheFirstCallerLeaves(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t)
	release := make(chan struct{})
	p.do(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = w.Write([]byte(setOf(one)))
	})
	f := newFollower(t, p.URL)
	raw := one.token(sessionClaims())
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := f.Verify(ctx, raw)
		left <- err
	}()
	for p.fetches.Load() == 0 {
		runtime.Gosched()
	}
	leave()
	if err := <-left; kindOf(err) != "unavailable" || !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left got %v", err)
	}
	joined := make(chan error)
	go func() {
		_, err := f.Verify(context.Background(), raw)
		joined <- err
	}()
	close(release)
	if err := <-joined; err != nil {
		t.Errorf("the one who stayed got %v", err)
	}
	p.expectFetches(t, 1)
}

// TestAnAbandonedRefreshSaysNothing: that the caller left is no news of the issuer.
func TestAnAbandonedRefreshSaysNothing(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t)
	arrived := make(chan struct{})
	p.do(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	f := newFollower(t, p.URL)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-arrived
		leave()
	}()
	if err := f.keys.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if s := f.keys.Stats(); s.LastError != nil {
		t.Errorf("it is remembered: %v", s.LastError)
	}
	p.publish(one)
	f.expect(t, one, "ok")

	// One who has left before does not even ask.
	if err := f.keys.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	p.expectFetches(t, 2)
}

// TestWhatIsNotASet: each answer is an error that names its source and its kind, and leaves the last good set in place.
func TestWhatIsNotASet(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t, one)
	elsewhere := newPublisher(t, newSigner("evil"))
	var outcomes []string
	f := newFollower(t, p.URL+"/jwks?key=hush", func(c *token.KeysConfig) {
		c.Timeout = 200 * time.Millisecond
		c.OnFetch = func(outcome string, _ time.Duration) { outcomes = append(outcomes, outcome) }
	})
	f.expect(t, one, "ok")
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(setOf(one)))
	_ = z.Close()
	rows := []struct {
		name, outcome, want string
		answer              http.HandlerFunc
	}{
		{"500", token.FetchStatus, "status 500, want 200", answer(500, setOf(one))},
		{"404", token.FetchStatus, "status 404", answer(404, "")},
		{"401", token.FetchStatus, "status 401", answer(401, "")},
		{"203", token.FetchStatus, "status 203", answer(203, setOf(one))},
		{"204", token.FetchStatus, "status 204", answer(204, "")},
		{"206", token.FetchStatus, "status 206", answer(206, setOf(one))},
		{"redirect", token.FetchStatus, "redirects are not followed; name the final address", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}},
		{"redirect for ever", token.FetchStatus, "redirects are not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		}},
		{"HTML", token.FetchInvalid, "not a JSON object", answer(200, "<html>")},
		{"nothing", token.FetchInvalid, "not a JSON object", answer(200, "")},
		{"too large", token.FetchInvalid, "larger than 1048576 bytes", answer(200, strings.Repeat(" ", 1<<20)+setOf(one))},
		{"endless", token.FetchInvalid, "larger than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}},
		{"compressed unasked", token.FetchInvalid, "not valid UTF-8", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		}},
		{"secret key", token.FetchInvalid, "symmetric key in a public set", answer(200, `{"keys":[{"kty":"oct","k":"AA"}]}`)},
		{"huge header", token.FetchUnreachable, "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			_, _ = w.Write([]byte(setOf(one)))
		}},
		{"never", token.FetchUnreachable, "", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"slow body", token.FetchUnreachable, "", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond) // the server's pace, not the test's
			}
		}},
		{"cut off", token.FetchUnreachable, "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
		}},
		{"hung up", token.FetchUnreachable, "EOF", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = c.Close()
			}
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p.do(r.answer)
			err := f.keys.Refresh(t.Context())
			if err == nil || !strings.Contains(err.Error(), r.want) || !strings.Contains(err.Error(), p.URL+"/jwks: ") {
				t.Errorf("got %v, want the address and %q", err, r.want)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("%q holds the query", err)
			}
			if got := outcomes[len(outcomes)-1]; got != r.outcome {
				t.Errorf("got outcome %s, want %s", got, r.outcome)
			}
			if got := f.keys.Stats().LastError; got == nil || got.Error() != err.Error() {
				t.Errorf("got last error %v", got)
			}
			f.expect(t, one, "ok")
			if err := f.keys.Ready(); err != nil {
				t.Errorf("no longer ready: %v", err)
			}
		})
	}
	elsewhere.expectFetches(t, 0)
}

// TestAnEmptySetWithdraws: it is an error and takes effect.
func TestAnEmptySetWithdraws(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, one, "ok")
	p.publish()
	if err := f.keys.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "no usable key") {
		t.Errorf("got %v", err)
	}
	f.expect(t, one, "unavailable")
	if err := f.keys.Ready(); !errors.Is(err, token.ErrUnavailable) || !strings.Contains(err.Error(), "no usable key") {
		t.Errorf("got %v", err)
	}
	p.publish(one)
	if err := f.keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.expect(t, one, "ok")
}

// TestStaleKeys: the last good set serves for MaxStale, then nothing is known, and then it may come back.
func TestStaleKeys(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, one, "ok")
	p.say(http.StatusBadGateway, "")
	f.clock.pass(time.Hour)
	f.expect(t, one, "ok")
	p.expectFetches(t, 1)
	f.clock.pass(time.Nanosecond)
	f.expect(t, one, "unavailable")
	f.expect(t, one, "unavailable")
	p.expectFetches(t, 2) // and not one for each
	if err := f.keys.Ready(); !errors.Is(err, token.ErrUnavailable) || !strings.Contains(err.Error(), "status 502") {
		t.Errorf("got %v", err)
	}
	f.clock.pass(15 * time.Second)
	p.publish(one)
	f.expect(t, one, "ok")
	p.expectFetches(t, 3)
	if s := f.keys.Stats(); s.Generation != 1 {
		t.Errorf("the same keys in generation %d", s.Generation)
	}
}

// TestTheIssuerIsDown: for tokens by unknown keys nobody can say whether they are good.
func TestTheIssuerIsDown(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.expect(t, one, "ok")
	f.clock.pass(time.Minute)
	p.CloseClientConnections()
	p.Close()
	f.expect(t, one, "ok")
	f.expect(t, two, "unavailable")
	raw := two.token(sessionClaims())
	_, err := f.Verify(t.Context(), raw)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

// TestTheClockIsSetBack: nothing waits for the time to come round again.
func TestTheClockIsSetBack(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL)
	f.clock.set(start.Add(10 * time.Minute))
	f.expect(t, one, "ok")
	p.publish(one, two)
	f.clock.set(start)
	f.expect(t, two, "ok")
	p.expectFetches(t, 2)
}

func TestACertificateNobodyVouchesFor(t *testing.T) {
	one := newSigner("one")
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(setOf(one))) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	newFollower(t, s.URL).expect(t, one, "unavailable")

	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	newFollower(t, s.URL, func(c *token.KeysConfig) { c.RootCAs = roots }).expect(t, one, "ok")
}

// TestProxyVariablesAreNotRead: who sets the environment of a process must not choose its keys. The name resolves to
// nothing, so that only a proxy could answer.
func TestProxyVariablesAreNotRead(t *testing.T) {
	p := newPublisher(t, newSigner("evil"))
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, p.URL)
	}
	f := newFollower(t, "https://keys.invalid/jwks", func(c *token.KeysConfig) { c.Timeout = time.Second })
	f.expect(t, newSigner("evil"), "unavailable")
	p.expectFetches(t, 0)
}

// TestDialGuard: a name that the configuration trusts must not lead to addresses that no issuer has.
func TestDialGuard(t *testing.T) {
	rows := []struct{ address, want string }{
		{"https://169.254.169.254/latest", "address is not allowed"},
		{"https://[fe80::1]/", "address is not allowed"},
		{"https://[::ffff:169.254.169.254]/", "address is not allowed"},
		{"https://0.0.0.0/", "address is not allowed"},
		{"https://[::]/", "address is not allowed"},
		{"https://224.0.0.1/", "address is not allowed"},
		{"https://[ff02::1]/", "address is not allowed"},
	}
	for _, r := range rows {
		f := newFollower(t, r.address, func(c *token.KeysConfig) { c.Timeout = time.Second })
		if err := f.keys.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s: got %v, want %q", r.address, err, r.want)
		}
	}
}

func TestFileReload(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	path := writeFile(t, setOf(one))
	k, err := token.NewKeys(token.KeysConfig{File: path, Now: fixed(start)})
	if err != nil {
		t.Fatal(err)
	}
	c := configOf(t, token.Session)
	clock := &clock{}
	c.Issuers[0].Keys, c.Now = k, clock.now
	f := &follower{newVerifier(t, c), k, clock}
	f.expect(t, one, "ok")
	f.expect(t, two, "invalid")

	write := func(content string) error {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return k.Reload(t.Context())
	}
	if err := write(setOf(one, two)); err != nil {
		t.Fatal(err)
	}
	f.expect(t, two, "ok")
	if err := write("{"); err == nil || !strings.Contains(err.Error(), path+": not a usable JWK Set: not a JSON object") {
		t.Errorf("got %v", err)
	}
	f.expect(t, one, "ok")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") || strings.Count(err.Error(), path) != 1 {
		t.Errorf("got %v", err)
	}
	f.clock.pass(24 * time.Hour) // a file has no age
	f.expect(t, one, "ok")
	if err := write(setOf(two)); err != nil {
		t.Fatal(err)
	}
	f.expect(t, one, "invalid")
	f.expect(t, two, "ok")
	if err := write(`{"keys":[]}`); err == nil {
		t.Error("a file without keys is no error")
	}
	f.expect(t, two, "unavailable")
}

func TestReloadLeavesURLsAlone(t *testing.T) {
	p := newPublisher(t, newSigner("one"))
	f := newFollower(t, p.URL)
	if err := f.keys.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.expectFetches(t, 0)
}

// started runs Keys until the returned func is called, which awaits the end.
func started(k *token.Keys) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestRun: it fetches until the issuer answers, then every RefreshEvery, and says what changes.
func TestRun(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t)
	p.say(http.StatusServiceUnavailable, "")
	var log bytes.Buffer
	outcomes := make(chan string, 100)
	f := newFollower(t, p.URL+"/jwks?key=hush", func(c *token.KeysConfig) {
		c.MinRefresh, c.RefreshEvery = time.Millisecond, 2*time.Millisecond
		c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		c.OnFetch = func(outcome string, _ time.Duration) {
			select {
			case outcomes <- outcome:
			default:
			}
		}
	})
	stop := started(f.keys)
	until := func(want string) {
		t.Helper()
		for range 3 {
			for outcome := ""; outcome != want; {
				select {
				case outcome = <-outcomes:
				case <-time.After(10 * time.Second):
					t.Fatalf("no %s", want)
				}
			}
		}
	}
	until(token.FetchStatus)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	if err := f.keys.Wait(ctx); !errors.Is(err, token.ErrUnavailable) || !strings.Contains(err.Error(), "status 503") {
		t.Errorf("Wait: got %v", err)
	}
	cancel()
	p.publish(one)
	if err := f.keys.Wait(t.Context()); err != nil {
		t.Errorf("Wait: got %v", err)
	}
	until(token.FetchOK)
	p.say(http.StatusOK, "x")
	until(token.FetchInvalid)
	stop()

	var said []string
	for line := range strings.Lines(log.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		said = append(said, record["msg"].(string))
		if record["from"] != p.URL+"/jwks" {
			t.Errorf("got from %v", record["from"])
		}
	}
	want := "keys cannot be refreshed; keys are refreshed again; keys cannot be refreshed"
	if got := strings.Join(said, "; "); got != want {
		t.Errorf("got %s", got)
	}
	if strings.Contains(log.String(), "hush") {
		t.Error("the log holds the query")
	}
}

func TestRunOverAFileWaitsForItsEnd(t *testing.T) {
	k := keysOf(t, newSigner("one"))
	if err := k.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	started(k)()
}

// TestNothingIsLeftBehind: with Run ended and the callers gone, no goroutine and no connection stays.
func TestNothingIsLeftBehind(t *testing.T) {
	one := newSigner("one")
	p := newPublisher(t, one)
	before := runtime.NumGoroutine()
	f := newFollower(t, p.URL, func(c *token.KeysConfig) {
		c.Timeout, c.MinRefresh, c.RefreshEvery = 100*time.Millisecond, time.Millisecond, time.Millisecond
	})
	stop := started(f.keys)
	f.expect(t, one, "ok")
	p.do(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
	defer leave()
	_, _ = f.Verify(ctx, newSigner("two").token(sessionClaims())) // leaves a fetch behind
	stop()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // bounded by Timeout
	}
	if got := runtime.NumGoroutine(); got > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", got, before, buf[:runtime.Stack(buf, true)])
	}
}

// TestUnderLoad verifies while keys rotate and clients leave; the race detector reads along.
func TestUnderLoad(t *testing.T) {
	one, two := newSigner("one"), newSigner("two")
	p := newPublisher(t, one)
	f := newFollower(t, p.URL, func(c *token.KeysConfig) { c.MinRefresh, c.RefreshEvery = time.Millisecond, time.Millisecond })
	stop := started(f.keys)
	if err := f.keys.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := sessionClaims()
	raws := []string{one.token(c), two.token(c), newSigner("ghost").token(c), flip(one.token(c))}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n%5)*time.Millisecond)
				raw := raws[(i+n)%len(raws)]
				got, err := f.Verify(ctx, raw)
				cancel()
				if kind := kindOf(err); kind == "ok" && (raw == raws[2] || raw == raws[3]) || kind == "malformed" || (got == nil) == (err == nil) {
					t.Errorf("got %v, %v", got, err)
				}
				if n%20 == 0 {
					p.publish([][]signer{{one}, {two}, {one, two}}[n/20%3]...)
					f.clock.pass(time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	stop()
}

// TestAnIssuerThatDoesNotAccept bounds the wait for a connection too.
func TestAnIssuerThatDoesNotAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u := url.URL{Scheme: "https", Host: l.Addr().String()} // it takes connections and never speaks
	f := newFollower(t, u.String(), func(c *token.KeysConfig) { c.Timeout = 100 * time.Millisecond })
	began := time.Now()
	f.expect(t, newSigner("one"), "unavailable")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
