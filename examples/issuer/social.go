package issuer

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

// Social is an OpenID provider by which people sign in. The JavaScript SDK 1.27.1 uses PKCE for github and twitter alone.
type Social struct {
	Issuer                              string // the claim iss of its tokens
	AuthorizationURL, TokenURL, JWKSURL string
	ClientID, ClientSecret              string
	// RedirectURL is where the provider sends people back to: …/providers/{provider}/redirect, as browsers reach it. Empty means on
	// the host that a request names, for those who do not know it before.
	RedirectURL string
}

const (
	socialLifetime = 10 * time.Minute
	minState       = 16 // characters; the SDK draws 32
)

// socialSignIn is one that has begun. The browser's page drew the state, and only what it fits goes on.
type socialSignIn struct {
	Provider    string `json:"provider"`
	RedirectURL string `json:"redirectUrl"` // that the provider was told
	Page        string `json:"page"`        // where the app waits
	Code        string `json:"code"`        // SHA-256 of the code that came back with the state; empty before
	expiring
}

var errSocial = unprocessable("invalid_verification", "Social sign-in not verified")

// providers are as the SDK reads them (models/Provider.js of sdk-api-core): without a secret.
func (i *Issuer) providers(r *http.Request) []object {
	list := []object{}
	for _, name := range slices.Sorted(maps.Keys(i.cfg.Social)) {
		s := i.cfg.Social[name]
		list = append(list, object{
			"id": name, "provider": name, "clientId": s.ClientID, "baseAuthUrl": s.AuthorizationURL,
			"redirectUrl": i.redirectURL(r, name, s), "scopes": "openid email profile",
		})
	}
	return list
}

func (i *Issuer) redirectURL(r *http.Request, name string, s Social) string {
	if s.RedirectURL != "" {
		return s.RedirectURL
	}
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host + i.Prefix() + "/providers/" + name + "/redirect"
}

func (i *Issuer) provider(r *http.Request) (name string, s Social, err error) {
	name = r.PathValue("provider")
	s, known := i.cfg.Social[name]
	if !known {
		return "", Social{}, fail(http.StatusNotFound, "not_found", "No such provider")
	}
	return name, s, nil
}

// POST /providers/{provider}/initAuth {state, redirectUrl}. The redirect leads to a site of ours only.
func (i *Issuer) beginSocial(r *http.Request) (any, error) {
	var body struct{ State, RedirectURL string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	name, provider, err := i.provider(r)
	if err != nil {
		return nil, err
	}
	to, err := url.Parse(body.RedirectURL)
	if err != nil || to.User != nil || !slices.Contains(i.cfg.Origins, to.Scheme+"://"+to.Host) {
		return nil, unprocessable("invalid_redirect_url", "redirectUrl is not on a site of this environment")
	}
	if len(body.State) < minState {
		return nil, unprocessable("invalid_state", "state is too short")
	}
	begun := socialSignIn{
		Provider: name, RedirectURL: i.redirectURL(r, name, provider), Page: body.RedirectURL, expiring: i.expiry(socialLifetime),
	}
	return nil, i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketSocial, i.cfg.Now()); err != nil {
			return err
		}
		if known, err := get(tx, bucketSocial, hash(body.State), new(socialSignIn)); err != nil || known {
			if err != nil {
				return err
			}
			return unprocessable("invalid_state", "state is in use")
		}
		return put(tx, bucketSocial, hash(body.State), begun)
	})
}

// GET /providers/{provider}/redirect?state=…&code=… is where the provider sends the browser, and this sends it on to the page.
func (i *Issuer) socialRedirect(r *http.Request) (any, error) {
	query := r.URL.Query()
	state, code := query.Get("state"), query.Get("code")
	var to *url.URL
	err := i.update(func(tx *bolt.Tx) error {
		begun, err := i.begun(tx, r, state)
		if err != nil {
			return err
		}
		if code == "" || begun.Code != "" {
			return errSocial
		}
		if to, err = url.Parse(begun.Page); err != nil {
			return err
		}
		begun.Code = hash(code)
		return put(tx, bucketSocial, hash(state), begun)
	})
	if err != nil {
		return nil, err
	}
	back := to.Query()
	back.Set("dynamicOauthState", state)
	back.Set("dynamicOauthCode", code)
	to.RawQuery = back.Encode()
	return redirect(to.String()), nil
}

// begun finds a sign-in by its state and the provider in the path.
func (i *Issuer) begun(tx *bolt.Tx, r *http.Request, state string) (socialSignIn, error) {
	var begun socialSignIn
	known, err := get(tx, bucketSocial, hash(state), &begun)
	if err != nil {
		return begun, err
	}
	if !known || begun.Provider != r.PathValue("provider") || i.cfg.Now().After(begun.Expires) {
		return begun, errSocial
	}
	return begun, nil
}

// socialProof is the body that brings a code to the end of its way (models/OauthRequest.js of sdk-api-core).
type socialProof struct {
	State    string `json:"state"`
	Code     string `json:"code"`
	Verifier string `json:"codeVerifier"`
	asked
}

// identity is what the provider says of its user.
type identity struct {
	Email    string `json:"email"`
	Verified bool   `json:"email_verified"`
	Username string `json:"preferred_username"`
	jwt.RegisteredClaims
}

// proveSocially exchanges a code for what the provider says of its user. The state is spent before the provider is asked, and
// no transaction waits for it.
func (i *Issuer) proveSocially(r *http.Request, p socialProof) (prover, error) {
	name, provider, err := i.provider(r)
	if err != nil {
		return nil, err
	}
	var begun socialSignIn
	err = i.update(func(tx *bolt.Tx) error {
		var err error
		begun, err = i.begun(tx, r, p.State)
		if err != nil {
			return err
		}
		if begun.Code != hash(p.Code) { // which none is before a code came
			return errSocial
		}
		return remove(tx, bucketSocial, hash(p.State))
	})
	if err != nil {
		return nil, err
	}
	who, err := i.exchange(r, provider, begun, p)
	if err != nil || who.Subject == "" {
		i.cfg.Log.InfoContext(r.Context(), "social sign-in refused", "provider", name, "error", err)
		return nil, errSocial
	}
	var emails []string
	if who.Verified && who.Email != "" {
		emails = []string{normal(who.Email)}
	}
	return func(*bolt.Tx) (credential, error) {
		return credential{
			Format: formatOAuth, OAuthEmails: emails, PublicIdentifier: first(who.Email, who.Username, who.Subject),
			OAuthProvider: name, OAuthAccountID: who.Subject, OAuthUsername: who.Username,
		}, nil
	}, nil
}

func (i *Issuer) exchange(r *http.Request, s Social, begun socialSignIn, p socialProof) (identity, error) {
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {p.Code}, "redirect_uri": {begun.RedirectURL},
		"client_id": {s.ClientID}, "client_secret": {s.ClientSecret},
	}
	if p.Verifier != "" {
		form.Set("code_verifier", p.Verifier)
	}
	var who identity
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, s.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return who, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		IDToken string `json:"id_token"`
	}
	if err := ask(req, &answer); err != nil {
		return who, err
	}
	err = i.verify(r.Context(), authority{s.Issuer, s.ClientID, s.JWKSURL}, answer.IDToken, &who)
	return who, err
}

// POST /providers/{provider}/signIn {state, code, codeVerifier?}
func (i *Issuer) signInSocially(r *http.Request) (any, error) {
	var body socialProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	prove, err := i.proveSocially(r, body)
	if err != nil {
		return nil, err
	}
	return i.signInBy(r, body.asked, prove)
}

// POST /providers/{provider}/verify {state, code, codeVerifier?, requestedScopes?}
func (i *Issuer) verifySocially(r *http.Request, s session) (any, error) {
	var body socialProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	prove, err := i.proveSocially(r, body)
	if err != nil {
		return nil, err
	}
	return i.verifyBy(s, body.asked, prove)
}
