package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	codeLifetime = time.Minute
	maxBody      = 64 << 10
)

// grant is what a code is good for.
type grant struct {
	Email       string    `json:"email"`
	RedirectURL string    `json:"redirectUrl"`
	Challenge   string    `json:"challenge"` // empty for a client that sent none
	Nonce       string    `json:"nonce"`
	Expires     time.Time `json:"expires"`
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign in</title>
<form method="post" action="{{.Action}}">
<label>{{.Client}} asks who you are: <input name="email" type="email" value="ann@social.example" required></label>
<button>Continue</button></form>
</html>
`))

// GET /authorize shows the page with the button.
func (p *Provider) ask(w http.ResponseWriter, r *http.Request) {
	if _, ok := p.request(w, r); !ok {
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // nobody frames the button
	values := map[string]string{"Client": p.cfg.ClientID, "Action": r.URL.RequestURI()}
	_ = page.Execute(w, values) // the browser has gone: nobody is left to tell
}

// POST /authorize is the button.
func (p *Provider) consent(w http.ResponseWriter, r *http.Request) {
	query, ok := p.request(w, r)
	if !ok {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	email := r.PostFormValue("email")
	if email == "" {
		http.Error(w, "Nobody", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	g := grant{email, query.Get("redirect_uri"), query.Get("code_challenge"), query.Get("nonce"), p.cfg.Now().Add(codeLifetime)}
	raw, err := json.Marshal(g)
	if err == nil {
		err = p.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketCodes).Put(hash(code), raw) })
	}
	if err != nil {
		http.Error(w, "Internal error", http.StatusInternalServerError)
		return
	}
	back(w, r, url.Values{"code": {code}, "state": query["state"]})
}

// request checks an authorization request. What is wrong with the client or the address is told to the person, who may have
// been led here, and all else to the client (RFC 6749 section 4.1.2.1).
func (p *Provider) request(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	query := r.URL.Query()
	if query.Get("client_id") != p.cfg.ClientID || !p.allows(query.Get("redirect_uri")) {
		http.Error(w, "Unknown client_id or redirect_uri", http.StatusBadRequest)
		return nil, false
	}
	challenge, method := query.Get("code_challenge"), query.Get("code_challenge_method")
	switch {
	case query.Get("response_type") != "code":
		back(w, r, url.Values{"error": {"unsupported_response_type"}, "state": query["state"]})
	case query.Get("state") == "" || challenge != "" && (method != "S256" || len(challenge) != 43):
		back(w, r, url.Values{"error": {"invalid_request"}, "state": query["state"]})
	default:
		return query, true
	}
	return nil, false
}

// back sends the browser to the address of a request that has been checked, with an answer.
func back(w http.ResponseWriter, r *http.Request, answer url.Values) {
	to := r.URL.Query().Get("redirect_uri") + "?" + answer.Encode()
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // request has compared it with the list
}

func hash(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

// challengeOf is S256 of RFC 7636 section 4.2.
func challengeOf(verifier string) string { return base64.RawURLEncoding.EncodeToString(hash(verifier)) }
