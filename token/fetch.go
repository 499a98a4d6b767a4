package token

import (
	"context"
	"crypto/tls"
	"net/url"
	"os"

	"github.com/stepward/stepward/internal/fetch"
)

// What became of one attempt to read keys: the closed set of words that KeysConfig.OnFetch receives.
const (
	FetchOK          = fetch.OK          // the set replaced the old one
	FetchUnreachable = fetch.Unreachable // no answer in time, or the file cannot be read
	FetchStatus      = fetch.Status      // an answer other than 200; redirects are not followed
	FetchInvalid     = fetch.Invalid     // too large, not a JWK Set, or no key in it that could be used
)

// FetchOutcomes lists those words. The slice is the caller's.
func FetchOutcomes() []string {
	return []string{FetchOK, FetchUnreachable, FetchStatus, FetchInvalid}
}

// source reads the text of one JWK Set.
type source func(ctx context.Context) ([]byte, error)

func fileSource(path string, maxBytes int64) source {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, &fetch.Error{Outcome: FetchUnreachable, Err: fetch.WithoutPath(err)}
		}
		defer f.Close()
		return fetch.ReadAtMost(f, maxBytes)
	}
}

func urlSource(u *url.URL, c *KeysConfig) source {
	client := fetch.NewClient(fetch.Config{
		What: "keys", LoopbackOnly: u.Scheme == "http", Timeout: c.Timeout,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs},
	})
	address, maxBytes := u.String(), c.MaxBytes
	return func(ctx context.Context) ([]byte, error) {
		return fetch.Get(ctx, client, address, "application/jwk-set+json, application/json", maxBytes)
	}
}
