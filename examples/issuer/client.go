package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
)

// Device is the client's side of device registration: the key that a browser keeps to itself, and by which it is known again.
type Device struct{ private *ecdsa.PrivateKey }

// NewDevice makes a device that no issuer knows.
func NewDevice() (*Device, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate device key: %w", err)
	}
	return &Device{private}, nil
}

// Sign puts into header what proves that a request comes from this device. Each request needs a nonce of its own, from
// GET /nonces.
func (d *Device) Sign(header http.Header, nonce string) error {
	sum := sha256.Sum256([]byte(nonce))
	r, s, err := ecdsa.Sign(rand.Reader, d.private, sum[:])
	if err != nil {
		return fmt.Errorf("sign nonce: %w", err)
	}
	point, err := d.private.PublicKey.Bytes()
	if err != nil {
		return fmt.Errorf("encode device key: %w", err)
	}
	// The service wants a compressed point: x, and whether y is odd.
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	header.Set(headerNonce, nonce)
	header.Set(headerPublicKey, hex.EncodeToString(compressed))
	header.Set(headerSignedNonce, hex.EncodeToString(signature))
	return nil
}
