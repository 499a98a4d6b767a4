package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// Authenticator is the client's side of passkeys, a browser and its authenticator in one: ES256, no attestation, and its user always
// verified (WebAuthn sections 6.1 and 6.5).
type Authenticator struct {
	Origin string // that the browser says it is on
	Party  string // the relying party id that the authenticator signs for

	private *ecdsa.PrivateKey
	id      []byte
	counter uint32
}

// NewAuthenticator makes an authenticator with one key, for one site.
func NewAuthenticator(origin, party string) (*Authenticator, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate passkey: %w", err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return &Authenticator{Origin: origin, Party: party, private: private, id: id}, nil
}

// The flags of authenticator data (WebAuthn section 6.1).
const (
	userPresent  = 0x01
	userVerified = 0x04
	attested     = 0x40
)

// Register answers the challenge of GET /users/passkeys/register with the body to post there.
func (a *Authenticator) Register(challenge string) (map[string]any, error) {
	point, err := a.private.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode passkey: %w", err)
	}
	key, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}) // RFC 9053 section 7.1.1
	if err != nil {
		return nil, fmt.Errorf("encode passkey: %w", err)
	}
	data := slices.Concat(a.data(attested), make([]byte, 16), []byte{0, byte(len(a.id))}, a.id, key)
	attestation, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		return nil, fmt.Errorf("encode attestation: %w", err)
	}
	// The SDK spells the first member so.
	return a.credential(object{
		"clientDataJson": base64url(a.client("webauthn.create", challenge)), "attestationObject": base64url(attestation),
		"transports": []string{"internal"},
	}), nil
}

// Sign answers the challenge of GET /users/passkeys/authenticate with the body for POST /users/mfa/auth/passkey.
func (a *Authenticator) Sign(challenge string, scopes ...string) (map[string]any, error) {
	data, client := a.data(0), a.client("webauthn.get", challenge)
	clientHash := sha256.Sum256(client)
	sum := sha256.Sum256(slices.Concat(data, clientHash[:]))
	signature, err := ecdsa.SignASN1(rand.Reader, a.private, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign challenge: %w", err)
	}
	body := a.credential(object{
		"clientDataJSON": base64url(client), "authenticatorData": base64url(data), "signature": base64url(signature),
	})
	body["requestedScopes"] = scopes
	return body, nil
}

// data counts each use.
func (a *Authenticator) data(flags byte) []byte {
	a.counter++
	party := sha256.Sum256([]byte(a.Party))
	return binary.BigEndian.AppendUint32(append(party[:], flags|userPresent|userVerified), a.counter)
}

func (a *Authenticator) client(kind, challenge string) []byte {
	raw, _ := json.Marshal(object{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false}) // texts only
	return raw
}

func (a *Authenticator) credential(response object) object {
	id := base64url(a.id)
	return object{
		"id": id, "rawId": id, "type": "public-key", "authenticatorAttachment": "platform",
		"clientExtensionResults": object{}, "response": response,
	}
}

func base64url(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }
