// Package oidc is an example: a small OpenID provider, which stands in for a social network. A page with one field and one button
// asks people who they are.
//
// It is no production provider: it believes whoever says who they are. What it does, it does for real: codes work once and within a
// minute, for the client, the address and the verifier that they were made for (RFC 6749 section 4.1, RFC 7636), and id tokens
// are signed with a key that it publishes (OpenID Connect Core 1.0).
package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Config says who the provider is. Dir, URL, ClientID and ClientSecret are required.
type Config struct {
	// Dir is an existing directory; the provider keeps its state in the file oidc.db there.
	Dir string
	// URL is where browsers and clients reach the provider, without a path. It is the claim iss.
	URL                    string
	ClientID, ClientSecret string
	// Redirects are where people may be sent back to, letter by letter; see Allow.
	Redirects []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Provider is an OpenID provider. It is safe for concurrent use.
type Provider struct {
	cfg Config
	db  *bolt.DB
	key *ecdsa.PrivateKey

	mu sync.Mutex // guards cfg.Redirects
}

var (
	bucketMeta  = []byte("meta")  // "key": PKCS #8
	bucketCodes = []byte("codes") // SHA-256 of a code: grant
)

// New opens the file in cfg.Dir, or creates it with a new key. Close gives the file back.
func New(cfg Config) (*Provider, error) {
	if cfg.Dir == "" || cfg.URL == "" || cfg.ClientID == "" || cfg.ClientSecret == "" {
		return nil, errors.New("oidc: Dir, URL, ClientID and ClientSecret are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db, err := bolt.Open(filepath.Join(cfg.Dir, "oidc.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("oidc: open %s: %w", cfg.Dir, err)
	}
	cfg.Redirects = slices.Clone(cfg.Redirects)
	p := &Provider{cfg: cfg, db: db}
	if err := db.Update(p.start); err != nil {
		return nil, errors.Join(fmt.Errorf("oidc: %w", err), db.Close())
	}
	return p, nil
}

func (p *Provider) start(tx *bolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(bucketCodes); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	if der := meta.Get([]byte("key")); der != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return fmt.Errorf("decode key: %w", err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			return fmt.Errorf("key is a %T", parsed)
		}
		p.key = key
		return nil
	}
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return meta.Put([]byte("key"), der)
}

// Allow lets people be sent back to one address more.
func (p *Provider) Allow(redirect string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Redirects = append(p.cfg.Redirects, redirect)
}

func (p *Provider) allows(redirect string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.cfg.Redirects, redirect)
}

// Close closes the file. Requests that come later fail.
func (p *Provider) Close() error { return p.db.Close() }

// The endpoints, below Config.URL.
const (
	PathAuthorize = "/authorize"
	PathToken     = "/token"
	PathKeys      = "/keys"
)

// Handler serves the endpoints.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET "+PathKeys, p.keys)
	mux.HandleFunc("GET "+PathAuthorize, p.ask)
	mux.HandleFunc("POST "+PathAuthorize, p.consent)
	mux.HandleFunc("POST "+PathToken, p.token)
	return mux
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]any{
		"issuer": p.cfg.URL, "authorization_endpoint": p.cfg.URL + PathAuthorize, "token_endpoint": p.cfg.URL + PathToken,
		"jwks_uri": p.cfg.URL + PathKeys, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"}, "code_challenge_methods_supported": []string{"S256"},
	})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nobody is left to tell
}
