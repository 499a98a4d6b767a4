package issuer

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// walletProof is what a wallet signed (models/VerifyRequest.js of sdk-api-core).
type walletProof struct {
	Message   string `json:"messageToSign"`
	Signature string `json:"signedMessage"`
	Address   string `json:"publicWalletAddress"`
	Chain     string `json:"chain"`
	Network   string `json:"network"`
	Name      string `json:"walletName"`
	Provider  string `json:"walletProvider"`
	asked
}

// prover takes the nonce in the message whatever comes of the rest. Why a proof is refused is logged, and not told.
func (i *Issuer) proveWallet(r *http.Request, p walletProof) prover {
	return func(tx *bolt.Tx) (credential, error) {
		why := i.checkWallet(tx, p)
		if why != nil {
			i.cfg.Log.InfoContext(r.Context(), "wallet signature refused", "error", why)
			return credential{}, &kept{unprocessable("invalid_verification", "Wallet signature not verified")}
		}
		return credential{
			Format: formatWallet, PublicIdentifier: p.Address, Address: p.Address, Chain: "eip155",
			WalletName: p.Name, WalletProvider: p.Provider,
		}, nil
	}
}

func (i *Issuer) checkWallet(tx *bolt.Tx, p walletProof) error {
	if p.Chain != "EVM" && p.Chain != "ETH" {
		return errors.New("chain: this example knows wallets of Ethereum only")
	}
	m, err := parseSIWE(p.Message)
	if err != nil {
		return err
	}
	fresh, err := i.spendNonce(tx, m.nonce)
	if err != nil || !fresh {
		return errors.Join(err, errors.New("nonce: unknown, expired or used"))
	}
	if err := i.expects(m, p); err != nil {
		return err
	}
	signer, err := recoverAddress(p.Message, p.Signature)
	if err != nil {
		return err
	}
	if signer != m.address {
		return errors.New("signature: by another address")
	}
	return nil
}

// expects compares a message with what is true here: EIP-4361 leaves that to whoever relies on one.
func (i *Issuer) expects(m siwe, p walletProof) error {
	origin := m.uri.Scheme + "://" + m.uri.Host
	now := i.cfg.Now()
	switch {
	case m.uri.Host != m.domain || !slices.Contains(i.cfg.Origins, origin):
		return errors.New("domain and URI: not a site of ours")
	case !strings.EqualFold(m.address, p.Address):
		return errors.New("address: the request names another")
	case !slices.Contains(i.cfg.Chains, m.chain):
		return errors.New("chain ID: not one of ours")
	case p.Network != "" && p.Network != m.chain:
		return errors.New("chain ID: the request names another network")
	case m.requestID != "" && m.requestID != i.cfg.Environment:
		return errors.New("request ID: of another environment")
	}
	return m.inTime(now)
}

// POST /verify signs in by a wallet.
func (i *Issuer) signInByWallet(r *http.Request) (any, error) {
	var body walletProof
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return i.signInBy(r, body.asked, i.proveWallet(r, body))
}

// POST /wallets/verify steps up by a wallet, and POST /verify/link links one.
func (i *Issuer) verifyByWallet(stepUp bool) sessionFunc {
	return func(r *http.Request, s session) (any, error) {
		var body walletProof
		if err := decode(r, &body); err != nil {
			return nil, err
		}
		if stepUp && len(body.RequestedScopes) == 0 {
			return nil, unprocessable("invalid_scopes", "requestedScopes is missing")
		}
		if !stepUp {
			body.RequestedScopes = nil
		}
		return i.verifyBy(s, body.asked, i.proveWallet(r, body))
	}
}

// POST /verify/unlink {walletId?, verifiedCredentialId?, …} takes a credential away. A client names it in one of several
// members, one of which is misspelt in Dynamic's own API; of a social account it also names a wallet, as a hint.
func (i *Issuer) unlink(r *http.Request, s session) (any, error) {
	var body struct{ WalletID, VerifiedCredentialID, VerifiedCrentialID, PrimaryWalletID string }
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !s.complete() {
		return nil, errUnauthorized
	}
	id := first(body.VerifiedCredentialID, body.VerifiedCrentialID, body.WalletID, body.PrimaryWalletID)
	n := s.next(user{})
	err := i.change(s.User, func(tx *bolt.Tx, u *user) error {
		at := slices.IndexFunc(u.Credentials, func(c credential) bool { return c.ID == id })
		if at < 0 {
			return unprocessable("invalid_unlink_request", "No such credential")
		}
		if len(u.Credentials) == 1 {
			return unprocessable("cannot_delete_last_sign_in_verified_credential", "Nobody could sign in any more")
		}
		if err := remove(tx, bucketCredentials, u.Credentials[at].key()); err != nil {
			return err
		}
		u.Credentials = slices.Delete(u.Credentials, at, at+1)
		n.user = *u
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.respond(n)
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
