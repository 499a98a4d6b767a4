package issuer

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// elevatedScopes are the scopes that may be asked for. Those of Dynamic's own console are none of a wallet's business.
var elevatedScopes = strings.Fields(`
	credential:link credential:unlink credential:update user:update user:delete
	wallet:export wallet:sign wallet:delegate wallet:refresh wallet:reshare wallet:delete wallet:restore
	business_account:governance:update business_account:link_wallet business_account:member:add
	business_account:member:remove business_account:member:role:update business_account:proposal:approve
	business_account:proposal:veto business_account:role:define business_account:role:delete
	business_account:signer:add business_account:signer:remove business_account:transfer_ownership
	business_account:wallet:create business_account:wallet:remove`)

// actionsOf names the actions whose settings decide about the tokens of a scope (dynamic.md h).
var actionsOf = map[string][]string{
	"user:update": {"user.update"}, "wallet:export": {"wallet.waas.export"}, "wallet:sign": {"wallet.waas.sign"},
	"wallet:refresh": {"wallet.waas.refresh"}, "wallet:reshare": {"wallet.waas.reshare"},
	"wallet:delegate": {"wallet.waas.refresh", "wallet.waas.reshare"},
}

// behaviour says whether a token for these scopes works once, and how long it lives. What the service does when scopes that
// differ are asked for together is not documented; here the strictest decides.
func (i *Issuer) behaviour(scopes []string) (once bool, lifetime time.Duration) {
	lifetime = time.Duration(math.MaxInt64)
	for _, scope := range scopes {
		o, l := i.behaviourOf(scope)
		once, lifetime = once || o, min(lifetime, l)
	}
	return once, lifetime
}

// behaviourOf is that of one scope. By Dynamic's defaults the tokens of wallets work once, and those of the transfer of a
// business account.
func (i *Issuer) behaviourOf(scope string) (once bool, lifetime time.Duration) {
	once = strings.HasPrefix(scope, "wallet:") || scope == "business_account:transfer_ownership"
	seconds := 0
	for _, a := range i.cfg.Actions {
		if !slices.Contains(actionsOf[scope], a.Action) {
			continue
		}
		if a.TokenBehavior != "" {
			once = a.TokenBehavior == "single_use"
		}
		seconds = a.TokenExpirySeconds
	}
	switch {
	case seconds > 0:
		return once, time.Duration(seconds) * time.Second
	case once:
		return once, singleUseLifetime
	}
	return once, multiUseLifetime
}

// elevate signs an elevated token for scopes that were requested, none for no scopes.
func (i *Issuer) elevate(user string, scopes []string) (string, error) {
	if len(scopes) == 0 {
		return "", nil
	}
	scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	once, lifetime := i.behaviour(scopes)
	return i.ElevatedToken(user, scopes, once, func(claims map[string]any) {
		claims["exp"] = i.cfg.Now().Add(lifetime).Unix()
	})
}

// mayElevate refuses scopes that nobody may ask for, and sessions that are not complete: an unregistered device must not
// gain by a step-up what it lacks.
func mayElevate(s session, a asked) error {
	for _, scope := range a.RequestedScopes {
		if !slices.Contains(elevatedScopes, scope) {
			return unprocessable("invalid_scopes", "Unknown scope requested")
		}
	}
	if (len(a.RequestedScopes) > 0 || a.CreateMFAToken != nil) && !s.complete() {
		return fail(http.StatusForbidden, "forbidden", "Sign-in is not complete")
	}
	return nil
}

// stepUpCredential is something that a user can step up with.
type stepUpCredential struct {
	ID     string `json:"id"`
	Format string `json:"format"`
	Type   string `json:"type,omitempty"`
	Alias  string `json:"alias,omitempty"`
}

// POST /stepUp/check {scope}. The issuer does not know what the gate's policy asks for, so every known scope is required, unless
// the environment is below the floor.
func (i *Issuer) stepUpCheck(r *http.Request, s session) (any, error) {
	var body struct {
		Scope string `json:"scope"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !slices.Contains(elevatedScopes, body.Scope) {
		return nil, unprocessable("invalid_scopes", "Unknown scope")
	}
	u, err := i.user(s.User)
	if err != nil {
		return nil, err
	}
	credentials := u.stepUpCredentials()
	answer := object{"isRequired": i.stepsUp(), "credentials": credentials}
	if len(credentials) > 0 {
		answer["defaultCredentialId"] = credentials[0].ID
	}
	return answer, nil
}

// stepUpCredentials are those that the user can step up with, the default one first. With a second factor enrolled, signing in
// anew is no longer a way (dynamic.md i).
func (u *user) stepUpCredentials() []stepUpCredential {
	list := u.mfaCredentials()
	if len(list) > 0 {
		return list
	}
	for _, c := range u.Credentials {
		list = append(list, stepUpCredential{ID: c.ID, Format: c.Format, Type: c.OAuthProvider, Alias: c.PublicIdentifier})
	}
	return list
}

// stepUpBy elevates a session by a second factor. check finds and tries it.
func (i *Issuer) stepUpBy(s session, a asked, check func(tx *bolt.Tx, u *user) error) (any, error) {
	if err := mayElevate(s, a); err != nil {
		return nil, err
	}
	n := s.next(user{})
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		err := check(tx, u)
		n.user = *u
		return err
	})
	if err != nil {
		return nil, err
	}
	return i.elevated(s, n, a)
}

// verifyBy has two meanings, as at Dynamic: with scopes it steps up by a credential that the user has, without them it links one
// that nobody has.
func (i *Issuer) verifyBy(s session, a asked, prove prover) (any, error) {
	if err := mayElevate(s, a); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	stepUp := len(a.RequestedScopes) > 0
	n := s.next(user{})
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		if stepUp && u.hasMFA() {
			return errMFARequired
		}
		c, err := prove(tx)
		if err != nil {
			return err
		}
		own := u.own(c)
		switch {
		case own == nil && stepUp:
			return unprocessable("invalid_verification", "Not a credential of this user")
		case own == nil:
			if err := link(tx, u, c); err != nil {
				return err
			}
			own = u.own(c)
		}
		n.user, n.last = *u, own.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.elevated(s, n, asked{RequestedScopes: a.RequestedScopes})
}

// elevated answers a step-up that succeeded.
func (i *Issuer) elevated(s session, n newSession, a asked) (any, error) {
	var err error
	if n.elevated, err = i.elevate(s.User, a.RequestedScopes); err != nil {
		return nil, err
	}
	if n.mfaToken, err = i.mfaToken(s, a.CreateMFAToken); err != nil {
		return nil, err
	}
	return i.respond(n)
}

var errMFARequired = fail(http.StatusForbidden, "mfa_required", "Use the registered MFA device")
