package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// What became of one attempt to read keys: the closed set of words that KeysConfig.OnFetch receives.
const (
	FetchOK          = "ok"          // the set replaced the old one
	FetchUnreachable = "unreachable" // no answer in time, or the file cannot be read
	FetchStatus      = "status"      // an answer other than 200; redirects are not followed
	FetchInvalid     = "invalid"     // too large, not a JWK Set, or no key in it that could be used
)

// FetchOutcomes lists those words. The slice is the caller's.
func FetchOutcomes() []string {
	return []string{FetchOK, FetchUnreachable, FetchStatus, FetchInvalid}
}

// fetchError is a failed attempt and the word for it.
type fetchError struct {
	outcome string
	err     error
}

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// source reads the text of one JWK Set.
type source func(ctx context.Context) ([]byte, error)

func fileSource(path string, maxBytes int64) source {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, &fetchError{FetchUnreachable, withoutPath(err)}
		}
		defer f.Close()
		return readAtMost(f, maxBytes)
	}
}

func urlSource(u *url.URL, c *KeysConfig) source {
	client := newClient(u.Scheme == "http", c.RootCAs, c.Timeout)
	address, maxBytes := u.String(), c.MaxBytes
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return nil, &fetchError{FetchUnreachable, withoutURL(err)}
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		resp, err := client.Do(req)
		if err != nil {
			return nil, &fetchError{FetchUnreachable, withoutURL(err)}
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, &fetchError{FetchStatus, statusError(resp.StatusCode)}
		}
		return readAtMost(resp.Body, maxBytes)
	}
}

func statusError(code int) error {
	if code >= 300 && code < 400 {
		return fmt.Errorf("status %d: redirects are not followed; name the final address", code)
	}
	return fmt.Errorf("status %d, want 200", code)
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, &fetchError{FetchUnreachable, withoutPath(err)}
	case int64(len(text)) > limit:
		return nil, &fetchError{FetchInvalid, fmt.Errorf("larger than %d bytes", limit)}
	}
	return text, nil
}

// newClient makes a client that goes where the configuration says and nowhere else: no redirects, no proxy from the
// environment, no kept connections (one fetch in minutes), no decompression.
func newClient(loopbackOnly bool, roots *x509.CertPool, timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: timeout, ControlContext: dialGuard(loopbackOnly)}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dialGuard refuses addresses that no issuer has, after name resolution, so that a name cannot lead there either: link-local
// ones (cloud metadata), multicast, "any". Plain http stays on this machine.
func dialGuard(loopbackOnly bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %s: not an IP address", address)
		}
		ip := ap.Addr().Unmap().WithZone("")
		switch {
		case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified():
			return fmt.Errorf("dial %s: address is not allowed", ip)
		case loopbackOnly && !ip.IsLoopback():
			return fmt.Errorf("dial %s: http is allowed on loopback only", ip)
		}
		return nil
	}
}

// checkURL parses the address of a JWK Set: https, or http to loopback.
func checkURL(address string) (*url.URL, error) {
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

// withoutURL drops the address that net/http and net/url put before an error: it may carry a query that is a secret.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// withoutPath drops the path, which where names already.
func withoutPath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func withoutQuery(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}
