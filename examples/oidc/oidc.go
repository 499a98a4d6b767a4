// Package oidc is an example: a small OpenID provider, the part of a social network that signs people in elsewhere (OpenID Connect Core
// 1.0 section 3.1, authorization code flow, with PKCE, RFC 7636). The example issuer sends people there.
//
// It believes whoever says who they are: there is a page with one field and one button, and no password. Codes work once, for the
// client and the address that they were made for; ID tokens are signed.
package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Config says who may send people here. All fields but Now are required.
type Config struct {
	Issuer       string // the claim iss of ID tokens
	ClientID     string
	ClientSecret string
	Redirects    []string // where people may be sent back to, letter by letter
	Now          func() time.Time
}

// Provider signs people in. It is safe for concurrent use, and forgets everything when it ends.
type Provider struct {
	cfg Config
	key *ecdsa.PrivateKey

	mu    sync.Mutex
	codes map[string]grant // guarded by mu
}

// grant stands behind a code.
type grant struct {
	email, redirect, challenge, nonce string
	expires                           time.Time
}

const codeLifetime = time.Minute

// New makes a provider with a fresh key.
func New(c Config) (*Provider, error) {
	if c.Issuer == "" || c.ClientID == "" || c.ClientSecret == "" {
		return nil, errors.New("oidc: Issuer, ClientID and ClientSecret are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("oidc: generate key: %w", err)
	}
	return &Provider{cfg: c, key: key, codes: map[string]grant{}}, nil
}

// Key is what its ID tokens are verified with.
func (p *Provider) Key() crypto.PublicKey { return p.key.Public() }

// Allow lets people be sent back to one address more.
func (p *Provider) Allow(redirect string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Redirects = append(p.cfg.Redirects, redirect)
}

// Handler serves GET and POST /authorize and POST /token.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", p.ask)
	mux.HandleFunc("POST /authorize", p.consent)
	mux.HandleFunc("POST /token", p.token)
	return mux
}

// The form goes back to the address that the page has.
const page = `<!doctype html><meta charset=utf-8><title>Social example</title>
<form method=post><label>Who are you? <input name=email type=email value="ann@social.example" required></label> <button>Continue</button></form>
`

func (p *Provider) allowed(q url.Values) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	plain := q.Get("code_challenge") == "" || q.Get("code_challenge_method") == "S256"
	return q.Get("client_id") == p.cfg.ClientID && q.Get("response_type") == "code" && slices.Contains(p.cfg.Redirects, q.Get("redirect_uri")) && plain
}

func (p *Provider) ask(w http.ResponseWriter, r *http.Request) {
	if !p.allowed(r.URL.Query()) {
		http.Error(w, "unknown client, response type, redirect_uri or challenge method", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(page)) // a client that is gone
}

func (p *Provider) consent(w http.ResponseWriter, r *http.Request) {
	q, email := r.URL.Query(), r.PostFormValue("email")
	if !p.allowed(q) || email == "" {
		http.Error(w, "unknown client, response type, redirect_uri or challenge method, or nobody", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = grant{email, q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"), p.cfg.Now().Add(codeLifetime)}
	p.mu.Unlock()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "redirect_uri", http.StatusBadRequest)
		return
	}
	answer := back.Query()
	answer.Set("code", code)
	answer.Set("state", q.Get("state"))
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusSeeOther) //nolint:gosec // allowed has compared it with the list
}

// token changes a code for an ID token (RFC 6749 section 4.1.3, client_secret_post).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	secret := subtle.ConstantTimeCompare([]byte(r.PostFormValue("client_secret")), []byte(p.cfg.ClientSecret)) == 1
	code := r.PostFormValue("code")
	p.mu.Lock()
	g, known := p.codes[code]
	delete(p.codes, code)
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	verified := g.challenge == "" || g.challenge == base64.RawURLEncoding.EncodeToString(sum[:])
	w.Header().Set("Content-Type", "application/json")
	if !known || !secret || !verified || r.PostFormValue("client_id") != p.cfg.ClientID || r.PostFormValue("redirect_uri") != g.redirect || p.cfg.Now().After(g.expires) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`)) // a client that is gone
		return
	}
	now := p.cfg.Now()
	id := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": p.cfg.Issuer, "aud": p.cfg.ClientID, "sub": g.email, "email": g.email, "email_verified": true, "nonce": g.nonce,
		"iat": now.Unix(), "exp": now.Add(codeLifetime).Unix(),
	})
	signed, err := id.SignedString(p.key)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 60, "id_token": signed})
}
