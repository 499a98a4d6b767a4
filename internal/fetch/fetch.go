// Package fetch gets small documents from addresses that the operator named: it goes there and nowhere else.
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// What became of one attempt: a closed set of words, for metrics.
const (
	OK          = "ok"
	Unreachable = "unreachable" // no answer in time, or the file cannot be read
	Status      = "status"      // an answer other than 200; redirects are not followed
	Invalid     = "invalid"     // too large, or not what it should be
)

// Error is a failed attempt and the word for it.
type Error struct {
	Outcome string
	Err     error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Outcome is the word for an attempt that ended with err: an error that names none is Invalid, because reading comes first.
func Outcome(err error) string {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Outcome
	}
	return Invalid
}

// Config says where a client may go.
type Config struct {
	What         string // what is fetched, for errors: "keys"
	LoopbackOnly bool   // plain http stays on this machine
	// AnyAddress is for the backend, which the operator put wherever it is.
	AnyAddress bool
	TLS        *tls.Config   // nil means the system's roots; cloned
	Timeout    time.Duration // from dialling to the last byte; required
}

// NewClient makes a client without redirects, proxies from the environment, kept connections (one fetch in minutes) and
// decompression.
func NewClient(c Config) *http.Client {
	dialer := &net.Dialer{Timeout: c.Timeout}
	if !c.AnyAddress {
		dialer.ControlContext = guard(c.What, c.LoopbackOnly)
	}
	conf := c.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Timeout: c.Timeout,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        conf,
			TLSHandshakeTimeout:    c.Timeout,
			ResponseHeaderTimeout:  c.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guard refuses addresses that nobody publishes at, after name resolution, so that a name cannot lead there either: link-local
// ones (cloud metadata), multicast, "any".
func guard(what string, loopbackOnly bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %s: not an IP address", address)
		}
		ip := ap.Addr().Unmap().WithZone("")
		switch {
		case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified():
			return fmt.Errorf("dial %s: address is not allowed for %s", ip, what)
		case loopbackOnly && !ip.IsLoopback():
			return fmt.Errorf("dial %s: http is allowed on loopback only", ip)
		}
		return nil
	}
}

// Get reads the body of a 200, of at most maxBytes. Every error is an *Error and free of the address, whose query may be a secret.
func Get(ctx context.Context, client *http.Client, address, accept string, maxBytes int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, &Error{Unreachable, withoutURL(err)}
	}
	req.Header.Set("Accept", accept)
	return Do(client, req, maxBytes)
}

// Do is Get for a request of another kind.
func Do(client *http.Client, req *http.Request, maxBytes int64) ([]byte, error) {
	resp, err := client.Do(req) //nolint:gosec // the address is the operator's
	if err != nil {
		return nil, &Error{Unreachable, withoutURL(err)}
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		return nil, &Error{Status, fmt.Errorf("status %d: redirects are not followed; name the final address", code)}
	case code != http.StatusOK:
		return nil, &Error{Status, fmt.Errorf("status %d, want 200", code)}
	}
	return ReadAtMost(resp.Body, maxBytes)
}

// ReadAtMost reads all of r, which may have limit bytes. Every error is an *Error.
func ReadAtMost(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, &Error{Unreachable, WithoutPath(err)}
	case int64(len(text)) > limit:
		return nil, &Error{Invalid, fmt.Errorf("larger than %d bytes", limit)}
	}
	return text, nil
}

// ParseURL parses an address that may be fetched: https, or http to loopback.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, withoutURL(err)
	}
	switch {
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("no host")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("user info and fragments are not allowed")
	case u.Scheme == "https", u.Scheme == "http" && isLoopbackName(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("want https (http on loopback only)")
}

func isLoopbackName(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// withoutURL drops the address that net/http and net/url put before an error.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// WithoutPath drops the path that package os puts before an error.
func WithoutPath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// WithoutQuery is an address as it may be shown: its query may be a secret.
func WithoutQuery(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}
