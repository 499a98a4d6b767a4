// Package standing asks the backend whether a session still stands: one that was revoked, with its device or by itself, keeps
// a good signature until it expires (dynamic.md sections c and e: GET /sdk/{env}/session answers 204 or 401).
package standing

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Placeholder stands for the environment in Config.Path.
const Placeholder = "{environmentId}"

// ErrEnded says that the backend no longer knows the session. Every other error of Check says that it is not known.
var ErrEnded = errors.New("standing: the session has ended")

// Config says whom to ask. Fields without a default are required.
type Config struct {
	Backend *url.URL    // its origin: the token goes nowhere else
	TLS     *tls.Config // for an https backend; nil means the system's roots
	Path    string      // absolute; Placeholder in it becomes the session's environment
	// Header and Cookie are where the backend expects the token: as "Bearer <token>" and as a bare value.
	Header, Cookie string
	Timeout        time.Duration // of one question
	Cache          time.Duration // for how long an answer is believed; 0 asks every time
	Asked          func(result string)
	Now            func() time.Time // default time.Now
}

// The results that Config.Asked is told: what the backend said, or that an answer was remembered.
const (
	ResultStands      = "stands"
	ResultEnded       = "ended"
	ResultUnavailable = "unavailable"
	ResultRemembered  = "remembered"
)

// maxAnswers bounds what is remembered. Only sessions whose signature is good come here.
const maxAnswers = 1 << 16

// Session is one question.
type Session struct {
	Environment string
	Token       string // its signature has been verified
	InCookie    bool   // it came in the cookie, so the backend expects it there
	Fresh       bool   // do not answer from memory
}

// Checker asks. It is safe for concurrent use.
type Checker struct {
	config Config
	client *http.Client
	flight singleflight.Group

	mu      sync.Mutex
	answers map[key]answer // guarded by mu
}

type key [sha256.Size]byte

// answer is what the backend said to a question that began at a time.
type answer struct {
	began time.Time
	ended bool
}

// New checks the configuration and returns a Checker.
func New(c Config) (*Checker, error) {
	if c.Backend == nil || !strings.HasPrefix(c.Path, "/") || c.Timeout <= 0 || c.Header == "" && c.Cookie == "" {
		return nil, errors.New("standing: want a backend, an absolute path, a timeout and a header or cookie")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Asked == nil {
		c.Asked = func(string) {}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Checker{config: c, answers: map[key]answer{}, client: &http.Client{
		Transport: &http.Transport{ // without Proxy: a token must not go by an address from the environment
			Protocols: protocols, TLSClientConfig: c.TLS, DisableCompression: true, MaxIdleConnsPerHost: 64,
			IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends the connections that no question uses.
func (c *Checker) Close() { c.client.CloseIdleConnections() }

// Check returns nil for a session that stands, ErrEnded for one that the backend no longer accepts, and another error where it
// did not say. Questions about one session at one time are asked once, apart from fresh ones: those must not be answered by
// what was asked before they came.
func (c *Checker) Check(ctx context.Context, s Session) error {
	k := keyOf(s)
	if s.Fresh {
		return c.ask(ctx, k, s)
	}
	if a, ok := c.remembered(k); ok {
		c.config.Asked(ResultRemembered)
		return a.err()
	}
	asked := c.flight.DoChan(string(k[:]), func() (any, error) {
		return nil, c.ask(context.WithoutCancel(ctx), k, s) // others wait for it when this client is gone
	})
	select {
	case result := <-asked:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("standing: %w", ctx.Err())
	}
}

func keyOf(s Session) key {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d:%s%t:%s", len(s.Environment), s.Environment, s.InCookie, s.Token) // a hash takes everything
	var k key
	h.Sum(k[:0])
	return k
}

func (a answer) err() error {
	if a.ended {
		return ErrEnded
	}
	return nil
}

func (c *Checker) remembered(k key) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[k]
	return a, ok && c.config.Now().Sub(a.began) < c.config.Cache
}

// remember keeps the answer to the question that began last: a slow one must not undo what is known since.
func (c *Checker) remember(k key, a answer) {
	if c.config.Cache <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.answers[k]; ok && known.began.After(a.began) {
		return
	}
	if len(c.answers) >= maxAnswers {
		c.makeRoom()
	}
	c.answers[k] = a
}

// makeRoom drops what is too old to be believed, or else everything: that costs questions and is never wrong.
func (c *Checker) makeRoom() {
	now := c.config.Now()
	for k, a := range c.answers {
		if now.Sub(a.began) >= c.config.Cache {
			delete(c.answers, k)
		}
	}
	if len(c.answers) >= maxAnswers {
		clear(c.answers)
	}
}

func (c *Checker) ask(ctx context.Context, k key, s Session) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	began := c.config.Now()
	status, err := c.get(ctx, s)
	switch {
	case err != nil:
		c.config.Asked(ResultUnavailable)
		return fmt.Errorf("standing: %w", err)
	case status == http.StatusUnauthorized:
		c.config.Asked(ResultEnded)
		c.remember(k, answer{began, true})
		return ErrEnded
	case status == http.StatusNoContent, status == http.StatusOK:
		c.config.Asked(ResultStands)
		c.remember(k, answer{began, false})
		return nil
	}
	c.config.Asked(ResultUnavailable)
	return fmt.Errorf("standing: the backend answered %d, which says nothing about the session", status)
}

func (c *Checker) get(ctx context.Context, s Session) (status int, err error) {
	path := strings.ReplaceAll(c.config.Path, Placeholder, url.PathEscape(s.Environment))
	// Not the client's Host: whoever answers under another name must not be asked about this one's sessions.
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.config.Backend.Scheme+"://"+c.config.Backend.Host+path, nil)
	if err != nil {
		return 0, errors.New("the path is not one") // the error would quote it
	}
	if s.InCookie && c.config.Cookie != "" {
		r.Header.Set("Cookie", c.config.Cookie+"="+s.Token)
	} else {
		r.Header.Set(c.config.Header, "Bearer "+s.Token)
	}
	res, err := c.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4<<10)) // so that the connection can be used again
	return res.StatusCode, nil
}
