// Package site is an example: the web site of a wallet. Its page takes a person through a step-up by hand, in a browser, and shows
// every request and every answer as it went over the wire.
//
// The page speaks the wallet's API as an app does and knows nothing of Stepward's code. What no site has is here for the demo's
// sake: a mailbox that shows all mail to everybody, and a wallet that signs whatever it is asked to. Serve it on loopback only.
package site

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/examples/issuer"
)

// Config says what the site is a wallet for. All of it is required.
type Config struct {
	// Origin is where browsers reach the site. Passkeys want localhost rather than 127.0.0.1.
	Origin string
	// Environments are what people choose from, in this order.
	Environments []Environment
}

// Environment is one of the wallet's.
type Environment struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

// Site is the web site. It is safe for concurrent use.
type Site struct {
	cfg    Config
	key    *ecdsa.PrivateKey // by which the site's own backend speaks for its users
	wallet *issuer.EthereumWallet

	mu   sync.Mutex
	door string    // guarded by mu
	mail []message // the oldest first; guarded by mu
}

type message struct {
	issuer.Mail
	At time.Time
}

// New makes a site with keys of its own.
func New(cfg Config) (*Site, error) {
	if cfg.Origin == "" || len(cfg.Environments) == 0 {
		return nil, errors.New("site: Origin and Environments are required")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("site: generate key: %w", err)
	}
	wallet, err := issuer.NewEthereumWallet()
	if err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	return &Site{cfg: cfg, key: key, wallet: wallet}, nil
}

// Open tells the page where the wallet's API is: at Stepward.
func (s *Site) Open(door string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door = door
}

const maxMail = 100

// Deliver puts a message into the mailbox.
func (s *Site) Deliver(m issuer.Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = append(s.mail, message{m, time.Now()})
	if len(s.mail) > maxMail {
		s.mail = s.mail[1:]
	}
}

// KeysPath is where the keys are, by which an issuer verifies what the site says of its users. Their claim iss is Config.Origin.
const KeysPath = "/keys"

//go:embed page
var page embed.FS

// Handler serves the page and what it needs, under the host of Config.Origin and no other: a name that somebody points at this
// machine reads no mail.
func (s *Site) Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is in the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /settings.json", s.settings)
	mux.HandleFunc("GET /mailbox", s.mailbox)
	mux.HandleFunc("GET "+KeysPath, s.keys)
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /wallet", s.sign)
	return s.guarded(http.NewCrossOriginProtection().Handler(mux))
}

func (s *Site) guarded(h http.Handler) http.Handler {
	own, err := url.Parse(s.cfg.Origin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err != nil || r.Host != own.Host {
			http.Error(w, "This site is "+s.cfg.Origin, http.StatusMisdirectedRequest)
			return
		}
		s.mu.Lock()
		door := s.door
		s.mu.Unlock()
		w.Header().Set("Content-Security-Policy", "default-src 'self'; connect-src 'self' "+door+"; img-src data:; frame-ancestors 'none'; base-uri 'none'")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer") // links in mails have tokens
		h.ServeHTTP(w, r)
	})
}

func (s *Site) settings(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	door := s.door
	s.mu.Unlock()
	write(w, map[string]any{"door": door, "environments": s.cfg.Environments})
}

// GET /mailbox lists what was sent, the newest first.
func (s *Site) mailbox(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	mail := slices.Clone(s.mail)
	s.mu.Unlock()
	list := make([]map[string]any, 0, len(mail))
	for _, m := range slices.Backward(mail) {
		list = append(list, map[string]any{"to": m.To, "code": m.Code, "link": m.Link, "at": m.At})
	}
	write(w, list)
}

// GET /keys is a JWK Set (RFC 7517).
func (s *Site) keys(w http.ResponseWriter, _ *http.Request) {
	point, err := s.key.PublicKey.Bytes() // 4, then x and y of 32 bytes each
	if err != nil {
		http.Error(w, "Internal error", http.StatusInternalServerError)
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	write(w, map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
}

// POST /token {environment, user, scope?} is what the site's own backend says to an environment of a user that it has signed in; here
// it believes the page. With a scope it is an assertion, by which the user steps up.
func (s *Site) token(w http.ResponseWriter, r *http.Request) {
	var body struct{ Environment, User, Scope string }
	if !read(w, r, &body) {
		return
	}
	if body.User == "" || body.Environment == "" {
		http.Error(w, "user, environment: want a name and an id", http.StatusBadRequest)
		return
	}
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": s.cfg.Origin, "aud": body.Environment, "sub": body.User, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	if body.Scope != "" {
		claims["scope"] = body.Scope
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(s.key)
	if err != nil {
		http.Error(w, "Internal error", http.StatusInternalServerError)
		return
	}
	write(w, map[string]string{"jwt": signed})
}

// POST /wallet {environment, nonce, requestedScopes?} is what a browser extension would do: it signs in to this site. The answer is
// the body of the calls that take a wallet's signature.
func (s *Site) sign(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Environment, Nonce string
		RequestedScopes    []string
	}
	if !read(w, r, &body) {
		return
	}
	message := s.wallet.Message(r.Host, s.cfg.Origin+"/", body.Environment, body.Nonce, time.Now())
	write(w, s.wallet.Proof(message, body.RequestedScopes...))
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(into); err != nil {
		http.Error(w, "body: want JSON: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func write(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the browser has gone: nobody is left to tell
}
