package backend

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"fmt"
)

// ExportKey is the client's side of an export: only who made it can read what comes back.
type ExportKey struct{ private hpke.PrivateKey }

// NewExportKey makes one for a single export.
func NewExportKey() (*ExportKey, error) {
	private, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("generate export key: %w", err)
	}
	return &ExportKey{private}, nil
}

// ID is the exportId to ask with.
func (k *ExportKey) ID() string {
	return base64.RawURLEncoding.EncodeToString(k.private.PublicKey().Bytes())
}

// Open decrypts the encryptedPrivateKey of the answer.
func (k *ExportKey) Open(encrypted string) (ed25519.PrivateKey, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(encrypted)
	if err != nil {
		return nil, fmt.Errorf("decode exported key: %w", err)
	}
	seed, err := hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(exportInfo), sealed)
	if err != nil {
		return nil, fmt.Errorf("decrypt exported key: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("exported key has %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
