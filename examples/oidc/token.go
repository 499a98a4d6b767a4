package oidc

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

const (
	tokenLifetime = 5 * time.Minute
	keyID         = "oidc"
)

var errGrant = errors.New("invalid_grant")

// POST /token exchanges a code.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		write(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	form := r.PostForm
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	if id != p.cfg.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(p.cfg.ClientSecret)) != 1 {
		write(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	if form.Get("grant_type") != "authorization_code" {
		write(w, http.StatusBadRequest, map[string]string{"error": "unsupported_grant_type"})
		return
	}
	g, err := p.spend(form.Get("code"))
	if err == nil && !g.fits(form.Get("redirect_uri"), form.Get("code_verifier"), p.cfg.Now()) {
		err = errGrant
	}
	var signed string
	if err == nil {
		signed, err = p.sign(g)
	}
	switch {
	case errors.Is(err, errGrant):
		write(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
	case err != nil:
		write(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
	default:
		write(w, http.StatusOK, map[string]any{
			"access_token": signed, "id_token": signed, "token_type": "Bearer", "expires_in": int(tokenLifetime.Seconds()),
		})
	}
}

// spend takes a code, whatever comes of it: a second try with another verifier finds none.
func (p *Provider) spend(code string) (grant, error) {
	var g grant
	err := p.db.Update(func(tx *bolt.Tx) error {
		codes := tx.Bucket(bucketCodes)
		raw := codes.Get(hash(code))
		if raw == nil {
			return errGrant
		}
		if err := json.Unmarshal(raw, &g); err != nil {
			return err
		}
		return codes.Delete(hash(code))
	})
	return g, err
}

// fits compares a grant with what is asked for. A verifier without a challenge is refused too: the request that got the code
// was not this client's (RFC 9700 section 4.8.2).
func (g grant) fits(redirectURL, verifier string, now time.Time) bool {
	if redirectURL != g.RedirectURL || now.After(g.Expires) {
		return false
	}
	if g.Challenge == "" {
		return verifier == ""
	}
	return subtle.ConstantTimeCompare([]byte(challengeOf(verifier)), []byte(g.Challenge)) == 1
}

func (p *Provider) sign(g grant) (string, error) {
	now := p.cfg.Now()
	claims := jwt.MapClaims{
		"iss": p.cfg.URL, "aud": p.cfg.ClientID, "sub": g.Email, "iat": now.Unix(), "exp": now.Add(tokenLifetime).Unix(),
		"email": g.Email, "email_verified": true, "preferred_username": g.Email,
	}
	if g.Nonce != "" {
		claims["nonce"] = g.Nonce
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = keyID
	return token.SignedString(p.key)
}

// GET /keys
func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	point, err := p.key.PublicKey.Bytes() // 4, then x and y of 32 bytes each
	if err != nil {
		write(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	write(w, http.StatusOK, map[string]any{"keys": []map[string]string{{
		"kid": keyID, "alg": "ES256", "kty": "EC", "use": "sig", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
}
