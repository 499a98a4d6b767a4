package issuer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	bolt "go.etcd.io/bbolt"
)

// Social is an OpenID provider where people sign in. A production issuer would read most of this from the provider's discovery
// document.
type Social struct {
	Issuer       string // the claim iss of its ID tokens
	TokenURL     string
	ClientID     string
	ClientSecret string
	Key          crypto.PublicKey // of its ID tokens
}

// socialState is a sign-in that is away at a provider.
type socialState struct {
	Provider string `json:"provider"`
	Return   string `json:"return"` // where the app waits
	Redirect string `json:"redirect"`
	expiring
}

var errSocial = unprocessable("invalid_oauth", "Social sign-in not accepted")

// POST /providers/{providerType}/initAuth {state, redirectUrl}. The app may only wait on a page of its own origin.
func (i *Issuer) beginSocial(r *http.Request) (any, error) {
	var body struct {
		State  string `json:"state"`
		Return string `json:"redirectUrl"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	name := r.PathValue("providerType")
	if _, known := i.cfg.Social[name]; !known || len(body.State) < 16 {
		return nil, errSocial
	}
	if body.Return != i.cfg.Audience && !strings.HasPrefix(body.Return, i.cfg.Audience+"/") {
		return nil, unprocessable("invalid_redirect_url", "The page is not one of the app's")
	}
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	state := socialState{
		Provider: name, Return: body.Return, Redirect: scheme + "://" + r.Host + i.Prefix() + "/providers/" + name + "/redirect",
		expiring: i.expiry(codeLifetime),
	}
	return map[string]any{}, i.update(func(tx *bolt.Tx) error {
		if err := sweep(tx, bucketSocial, i.cfg.Now()); err != nil {
			return err
		}
		return put(tx, bucketSocial, hash(body.State), state)
	})
}

// GET /providers/{providerType}/redirect?code&state is where the provider sends people. It hands them on to the app's page, with the
// names that the SDK looks for.
func (i *Issuer) returnFromSocial(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var state socialState
	var known bool
	err := i.db.View(func(tx *bolt.Tx) (err error) {
		known, err = get(tx, bucketSocial, hash(q.Get("state")), &state)
		return err
	})
	page, parseErr := url.Parse(state.Return)
	if err != nil || parseErr != nil || !known || state.Provider != r.PathValue("providerType") || i.cfg.Now().After(state.Expires) {
		i.write(w, http.StatusUnprocessableEntity, errSocial)
		return
	}
	back := page.Query()
	back.Set("dynamicOauthCode", q.Get("code"))
	back.Set("dynamicOauthState", q.Get("state"))
	page.RawQuery = back.Encode()
	http.Redirect(w, r, page.String(), http.StatusSeeOther)
}

// socialProof is the part of a body that proves a social account.
type socialProof struct {
	Code             string   `json:"code"`
	State            string   `json:"state"`
	Verifier         string   `json:"codeVerifier"`
	SessionPublicKey string   `json:"sessionPublicKey"`
	RequestedScopes  []string `json:"requestedScopes"`
}

// socialAccount is one at a provider that signs its user in.
type socialAccount struct {
	ID       string `json:"id"`
	Provider string `json:"provider"`
	Subject  string `json:"subject"`
	Email    string `json:"email"`
}

func (a socialAccount) key() string { return a.Provider + " " + a.Subject }

// prove spends the state and asks the provider whose code it is.
func (i *Issuer) proveSocial(r *http.Request, p socialProof) (socialAccount, error) {
	name := r.PathValue("providerType")
	var state socialState
	err := i.update(func(tx *bolt.Tx) error {
		known, err := get(tx, bucketSocial, hash(p.State), &state)
		if err == nil && (!known || state.Provider != name || i.cfg.Now().After(state.Expires)) {
			err = errSocial
		}
		return errors.Join(err, remove(tx, bucketSocial, hash(p.State)))
	})
	if err != nil {
		return socialAccount{}, errSocial
	}
	provider := i.cfg.Social[name]
	raw, err := provider.exchange(r.Context(), url.Values{
		"grant_type": {"authorization_code"}, "code": {p.Code}, "redirect_uri": {state.Redirect}, "client_id": {provider.ClientID},
		"client_secret": {provider.ClientSecret}, "code_verifier": {p.Verifier},
	})
	if err != nil {
		i.cfg.Log.WarnContext(r.Context(), "social sign-in", "provider", name, "error", err)
		return socialAccount{}, errSocial
	}
	var claims struct {
		Email string `json:"email"`
		jwt.RegisteredClaims
	}
	now := i.cfg.Now()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}), jwt.WithIssuer(provider.Issuer), jwt.WithAudience(provider.ClientID),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithLeeway(time.Second))
	if _, err := parser.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return provider.Key, nil }); err != nil || claims.Subject == "" {
		return socialAccount{}, errSocial
	}
	return socialAccount{ID: newID(), Provider: name, Subject: claims.Subject, Email: claims.Email}, nil
}

// tokenClient goes where it is sent and nowhere else.
var tokenClient = &http.Client{
	Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// exchange changes a code for an ID token.
func (s Social) exchange(ctx context.Context, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("token endpoint: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := tokenClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("token endpoint: %w", err)
	}
	defer res.Body.Close()
	var answer struct {
		IDToken string `json:"id_token"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("token endpoint: status %d", res.StatusCode)
	}
	return answer.IDToken, nil
}

// POST /providers/{providerType}/signIn {code, state, codeVerifier?}
func (i *Issuer) signInBySocial(r *http.Request) (any, error) {
	var body socialProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	account, err := i.proveSocial(r, body)
	if err != nil {
		return nil, err
	}
	n := newSession{scope: scopeBasic, key: body.SessionPublicKey}
	err = i.update(func(tx *bolt.Tx) error {
		publicKey, err := i.deviceKey(tx, r)
		if err != nil {
			return err
		}
		n.user, n.created, err = createOwner(tx, bucketAccounts, account.key(), func(u *user) { u.Accounts = []socialAccount{account} })
		if err != nil || !n.created || publicKey == "" {
			return err
		}
		n.device = n.user.register(r, publicKey, i.cfg.Now())
		return put(tx, bucketUsers, n.user.ID, n.user)
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

// POST /providers/{providerType}/verify {code, state, requestedScopes?}: with scopes it steps up, without them it links.
func (i *Issuer) verifySocial(r *http.Request, s session) (any, error) {
	var body socialProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	account, err := i.proveSocial(r, body)
	if err != nil {
		return nil, err
	}
	return i.stepUp(s, stepUpRequest{RequestedScopes: body.RequestedScopes}, func(tx *bolt.Tx, u *user) error {
		own := slices.ContainsFunc(u.Accounts, func(a socialAccount) bool { return a.key() == account.key() })
		switch linking := len(body.RequestedScopes) == 0; {
		case !linking && u.hasSecondFactor():
			return errMFARequired
		case !linking && !own:
			return errSocial
		case linking && !own:
			var owner string
			if taken, err := get(tx, bucketAccounts, account.key(), &owner); err != nil || taken {
				return errors.Join(err, unprocessable("social_account_already_exists", "Account belongs to another user"))
			}
			u.Accounts = append(u.Accounts, account)
			return put(tx, bucketAccounts, account.key(), u.ID)
		}
		return nil
	})
}
