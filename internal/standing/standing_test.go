package standing_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/standing"
)

// backend answers as the test says, and remembers what it was asked.
type backend struct {
	mu     sync.Mutex
	status int
	asked  []string // path, Host, Authorization, Cookie
	hold   func()   // before each answer
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.asked = append(b.asked, strings.Join([]string{r.Method, r.URL.EscapedPath(), r.Host, r.Header.Get("Authorization"), r.Header.Get("Cookie")}, " | "))
	status, hold := b.status, b.hold
	b.mu.Unlock()
	if hold != nil {
		hold()
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
}

func (b *backend) answer(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.asked)
}

func newChecker(t *testing.T, b *backend, change func(*standing.Config)) *standing.Checker {
	t.Helper()
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	origin, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := standing.Config{
		Backend: origin, Path: "/api/v0/sdk/{environmentId}/session", Header: "Authorization", Cookie: "DYNAMIC_JWT_TOKEN",
		Timeout: 5 * time.Second, Cache: 10 * time.Second,
	}
	if change != nil {
		change(&c)
	}
	checker, err := standing.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(checker.Close)
	return checker
}

var alice = standing.Session{Environment: "env", Token: "a.b.c"}

func TestWhatTheBackendSays(t *testing.T) {
	for status, want := range map[int]string{
		204: "stands", 200: "stands", 401: "ended", 403: "unavailable", 404: "unavailable", 302: "unavailable", 429: "unavailable", 500: "unavailable", 503: "unavailable",
	} {
		b := &backend{status: status}
		var results []string
		c := newChecker(t, b, func(c *standing.Config) { c.Asked = func(r string) { results = append(results, r) } })
		err := c.Check(context.Background(), alice)
		got := "unavailable"
		switch {
		case err == nil:
			got = "stands"
		case errors.Is(err, standing.ErrEnded):
			got = "ended"
		}
		if got != want || !slices.Equal(results, []string{want}) || b.count() != 1 {
			t.Errorf("%d: %s (%v), counted %v, asked %d times, want %s, once", status, got, err, results, b.count(), want)
		}
	}
}

func TestTheTokenGoesWhereItCameFrom(t *testing.T) {
	b := &backend{status: 204}
	c := newChecker(t, b, nil)
	_ = c.Check(context.Background(), standing.Session{Environment: "e/../é", Token: "one"})
	_ = c.Check(context.Background(), standing.Session{Environment: "env", Token: "two", InCookie: true})
	host := b.asked[0][strings.Index(b.asked[0], "127."):]
	host, _, _ = strings.Cut(host, " ")
	want := []string{
		"GET | /api/v0/sdk/e%2F..%2F%C3%A9/session | " + host + " | Bearer one | ",
		"GET | /api/v0/sdk/env/session | " + host + " |  | DYNAMIC_JWT_TOKEN=two",
	}
	if !slices.Equal(b.asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(b.asked, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnswersAreRememberedForAWhile(t *testing.T) {
	var now atomic.Int64
	now.Store(1)
	b := &backend{status: 204}
	c := newChecker(t, b, func(c *standing.Config) { c.Now = func() time.Time { return time.Unix(now.Load(), 0) } })
	check := func(what string, s standing.Session, want error, asked int) {
		t.Helper()
		if err := c.Check(context.Background(), s); !errors.Is(err, want) || b.count() != asked {
			t.Errorf("%s: %v, asked %d times, want %v and %d", what, err, b.count(), want, asked)
		}
	}
	fresh := alice
	fresh.Fresh = true
	check("first", alice, nil, 1)
	b.answer(401)
	check("remembered", alice, nil, 1)
	check("another environment", standing.Session{Environment: "en", Token: "va.b.c"}, standing.ErrEnded, 2)
	check("asked afresh", fresh, standing.ErrEnded, 3)
	check("what was asked afresh is remembered", alice, standing.ErrEnded, 3)
	b.answer(204)
	check("an end is remembered", alice, standing.ErrEnded, 3)
	now.Add(10)
	check("too long ago", alice, nil, 4)
	b.answer(500)
	now.Add(10)
	for i := range 3 {
		if err := c.Check(context.Background(), alice); err == nil || errors.Is(err, standing.ErrEnded) || b.count() != 5+i {
			t.Errorf("a failure: %v after %d questions; want one that is not remembered", err, b.count())
		}
	}
}

func TestWithoutCacheEveryRequestAsks(t *testing.T) {
	b := &backend{status: 204}
	c := newChecker(t, b, func(c *standing.Config) { c.Cache = 0 })
	for range 3 {
		if err := c.Check(context.Background(), alice); err != nil {
			t.Error(err)
		}
	}
	if b.count() != 3 {
		t.Errorf("asked %d times, want 3", b.count())
	}
}

// A slow answer must not undo what a later question found.
func TestASlowAnswerDoesNotReviveASession(t *testing.T) {
	var now atomic.Int64
	held, first := make(chan struct{}), make(chan struct{}, 1)
	b := &backend{status: 204}
	b.hold = func() { first <- struct{}{}; <-held }
	c := newChecker(t, b, func(c *standing.Config) {
		c.Now = func() time.Time { return time.Unix(now.Add(1), 0) }
		c.Cache = time.Hour
	})
	done := make(chan error)
	go func() { done <- c.Check(context.Background(), alice) }()
	<-first
	b.mu.Lock()
	b.status, b.hold = 401, nil
	b.mu.Unlock()
	fresh := alice
	fresh.Fresh = true
	if err := c.Check(context.Background(), fresh); !errors.Is(err, standing.ErrEnded) {
		t.Error(err)
	}
	close(held)
	if err := <-done; err != nil {
		t.Errorf("the slow question was answered 204: %v", err)
	}
	if err := c.Check(context.Background(), alice); !errors.Is(err, standing.ErrEnded) {
		t.Errorf("%v, want that the session has ended", err)
	}
}

func TestManyRequestsAskOnce(t *testing.T) {
	held := make(chan struct{})
	b := &backend{status: 204, hold: func() { <-held }}
	c := newChecker(t, b, nil)
	leaving, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { left <- c.Check(leaving, alice) }()
	for b.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	leave() // whoever asked first is gone: the others get their answer all the same
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the client is gone", err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range 64 {
		wg.Go(func() { errs <- c.Check(context.Background(), alice) })
	}
	close(held)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if b.count() != 1 {
		t.Errorf("asked %d times, want once", b.count())
	}
}

func TestABackendThatDoesNotAnswer(t *testing.T) {
	held := make(chan struct{})
	b := &backend{status: 204, hold: func() { <-held }}
	c := newChecker(t, b, func(c *standing.Config) { c.Timeout = 20 * time.Millisecond })
	defer close(held)
	for _, fresh := range []bool{false, true} {
		s := alice
		s.Fresh = fresh
		if err := c.Check(context.Background(), s); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), alice.Token) {
			t.Errorf("fresh %v: %v", fresh, err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	c := newChecker(t, &backend{status: 204}, func(c *standing.Config) { c.Cache = time.Hour })
	c.Fill(func(i int) standing.Session { return standing.Session{Token: fmt.Sprint(i)} })
	if err := c.Check(context.Background(), alice); err != nil {
		t.Fatal(err)
	}
	if n := c.Len(); n != 1 {
		t.Errorf("%d answers are kept, want the new one alone", n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := standing.New(standing.Config{Path: "/x", Timeout: time.Second, Header: "a"}); err == nil {
		t.Error("no backend is accepted")
	}
	origin := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	for _, c := range []standing.Config{
		{Backend: origin, Timeout: time.Second, Header: "a"}, {Backend: origin, Path: "x", Timeout: time.Second, Header: "a"},
		{Backend: origin, Path: "/x", Header: "a"}, {Backend: origin, Path: "/x", Timeout: time.Second},
	} {
		if _, err := standing.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
