package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// authenticator is a passkey in software: ES256, no attestation, and its user always verified (WebAuthn sections 6.1 and 6.5).
type authenticator struct {
	t       *testing.T
	private *ecdsa.PrivateKey
	id      []byte
	counter uint32

	origin string // that the browser says it is on
	party  string // that the authenticator says it signs for
}

func newAuthenticator(t *testing.T) *authenticator {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return &authenticator{t: t, private: private, id: id, origin: audience, party: "wallet.example"}
}

var b64 = base64.RawURLEncoding.EncodeToString

const (
	userPresent  = 0x01
	userVerified = 0x04
	attested     = 0x40
)

func (a *authenticator) data(flags byte, more ...byte) []byte {
	a.counter++
	party := sha256.Sum256([]byte(a.party))
	data := append(party[:], flags|userPresent|userVerified)
	return append(binary.BigEndian.AppendUint32(data, a.counter), more...)
}

func (a *authenticator) client(kind, challenge string) []byte {
	raw, err := json.Marshal(m{"type": kind, "challenge": challenge, "origin": a.origin, "crossOrigin": false})
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

func (a *authenticator) marshal(v any) []byte {
	a.t.Helper()
	raw, err := webauthncbor.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

// register answers a challenge as the SDK posts it.
func (a *authenticator) register(challenge string) m {
	a.t.Helper()
	point, err := a.private.PublicKey.Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	key := a.marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}) // RFC 9053 section 7.1.1
	more := append(make([]byte, 16), 0, byte(len(a.id)))
	more = append(append(more, a.id...), key...)
	object := a.marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": a.data(attested, more...)})
	return a.credential(m{"clientDataJson": b64(a.client("webauthn.create", challenge)), "attestationObject": b64(object),
		"transports": []string{"internal"}})
}

// sign answers a challenge as the SDK posts it.
func (a *authenticator) sign(challenge string, scopes ...string) m {
	a.t.Helper()
	data, client := a.data(0), a.client("webauthn.get", challenge)
	clientHash := sha256.Sum256(client)
	sum := sha256.Sum256(append(append([]byte{}, data...), clientHash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.private, sum[:])
	if err != nil {
		a.t.Fatal(err)
	}
	body := a.credential(m{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature)})
	body["requestedScopes"] = scopes
	return body
}

func (a *authenticator) credential(response m) m {
	return m{"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "authenticatorAttachment": "platform",
		"clientExtensionResults": m{}, "response": response}
}
