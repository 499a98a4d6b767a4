// Package backend is an example: a small wallet backend that serves part of Dynamic's API and knows nothing about step-up. The
// demo and the end-to-end tests put it behind Stepward.
//
// It is no production backend. It believes the Stepward-Subject header, so nobody but Stepward may reach it; keys lie
// unencrypted in its file; and one server holds each key, where the service splits it among several and lets them sign
// together. The endpoints, what they are asked and how they stream their answers are the service's; the results of signing
// and exporting, which it hands over on a channel of its own, are members that this package adds to the answers.
// What it does, it does for real: wallets are Solana key pairs, signatures verify, exports are encrypted to the caller.
package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/rs/cors"
	bolt "go.etcd.io/bbolt"
)

// The verified facts that Stepward passes on.
const (
	headerSubject  = "Stepward-Subject"
	headerScopes   = "Stepward-Scopes"
	headerDecision = "Stepward-Decision-Id"
)

// Config says what the backend serves. Dir and Environment are required.
type Config struct {
	// Dir is an existing directory; the backend keeps all its state in the file backend.db there.
	Dir string
	// Environment is the id that paths name.
	Environment string
	// Origins are the sites whose pages may call, with cookies (CORS); none means no page may.
	Origins []string
	// Pause is how long a stream waits between its two events; zero is not at all.
	Pause time.Duration
	// Next answers what the backend does not: with the example issuer here, both share one host, as they do at Dynamic. Nil
	// answers 404.
	Next http.Handler
	// Log gets one line for each request, with the decision that let it through; nil discards them.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Backend keeps wallets. It is safe for concurrent use.
type Backend struct {
	cfg Config
	db  *bolt.DB
}

// New opens the file in cfg.Dir or creates it. Close gives it back.
func New(cfg Config) (*Backend, error) {
	if cfg.Dir == "" || cfg.Environment == "" {
		return nil, errors.New("backend: Dir and Environment are required")
	}
	if cfg.Next == nil {
		cfg.Next = http.NotFoundHandler()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db, err := bolt.Open(filepath.Join(cfg.Dir, "backend.db"), 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("backend: open %s: %w", cfg.Dir, err)
	}
	b := &Backend{cfg: cfg, db: db}
	if err := b.makeBuckets(); err != nil {
		return nil, errors.Join(fmt.Errorf("backend: %w", err), db.Close())
	}
	return b, nil
}

// Close writes everything to disk and closes the file. Requests that come later fail.
func (b *Backend) Close() error { return errors.Join(b.db.Sync(), b.db.Close()) }

// Prefix is what the path of every endpoint begins with.
func (b *Backend) Prefix() string { return "/api/v0/sdk/" + b.cfg.Environment }

// Handler serves the endpoints below Prefix, and everything else by Config.Next. It counts every request before it acts on it.
func (b *Backend) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", b.cfg.Next)
	handle := func(call string, h http.Handler) {
		method, path := cut(call)
		mux.Handle(method+" "+b.Prefix()+path, h)
	}
	public := func(call string, h handlerFunc) { handle(call, b.serve(h)) }
	user := func(call string, h userFunc) { handle(call, b.serve(asUser(h))) }
	stream := func(call, first string, h userFunc) { handle(call, b.stream(first, asUser(h))) }

	public("GET /healthcheck", fixed(object{"status": "ok"}))
	public("GET /networks", fixed([]object{{"chainName": "solana", "networks": []string{"mainnet", "devnet"}}}))
	public("GET /exchangeRates", fixed(object{"rates": object{"SOL": "142.10", "USDC": "1.00"}}))

	handle("DELETE /users", http.HandlerFunc(b.deleteUser))
	user("GET /businessAccounts", b.emptyList("businessAccounts"))
	user("POST /businessAccounts/{id}/transferOwnership", b.transferOwnership)

	stream("POST /waas/create", "keygen_complete", b.createWallet)
	stream("POST /waas/{walletId}/signMessage", "room_created", b.signMessage)
	stream("POST /waas/{walletId}/privateKey/export", "room_created", b.exportKey)
	stream("POST /waas/{walletId}/refresh", "room_created", b.refreshShares)
	user("GET /waas/byWalletAddress/{address}", b.walletByAddress)
	user("DELETE /users/embeddedWallets/{walletId}/softDelete", b.softDelete)
	user("PUT /users/embeddedWallets/{walletId}/restore", b.restore)
	return b.fromBrowsers(b.counted(mux))
}

// fromBrowsers answers preflights, and tells browsers which pages may read the answers: those of Config.Origins. What a page
// may send is not limited: each SDK has headers of its own.
func (b *Backend) fromBrowsers(h http.Handler) http.Handler {
	if len(b.cfg.Origins) == 0 {
		return h
	}
	return cors.New(cors.Options{
		AllowedOrigins: b.cfg.Origins, AllowCredentials: true, AllowedHeaders: []string{"*"},
		AllowedMethods: []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		ExposedHeaders: []string{"x-dyn-request-id"},
	}).Handler(h)
}
