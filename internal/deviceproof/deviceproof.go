// Package deviceproof verifies the signature by which Dynamic's SDK shows that a request comes from a device's key: ECDSA on
// P-256 with SHA-256 over the text of a nonce (dynamic.md section e; the SDK's
// modules/deviceRegistration/getHeadersForNonceSignedByDeviceSigners).
package deviceproof

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/big"
)

// What a proof may measure, in bytes of text.
const (
	MaxNonce     = 256
	keyLength    = 2 * 33 // a compressed point (SEC 1 section 2.3.3), in hexadecimal
	signatureLen = 2 * 64 // r, then s (IEEE P1363), in hexadecimal
)

// ErrInvalid says that a proof proves nothing. One error for all faults: which it was is nobody's business.
var ErrInvalid = errors.New("deviceproof: the nonce, the key or the signature is not good")

// Key is a public key's compressed point in lower-case hexadecimal: one text for each point.
type Key string

// Verify reports who signed nonce. The key is 66 hexadecimal digits of either case, the signature 128; the nonce is printable
// ASCII without spaces and commas, so that no list of two passes for one.
//
// High-s signatures are good: WebCrypto and secure enclaves make them. That both (r, s) and (r, n-s) verify lets nobody spend
// a nonce twice, because what is spent is named by key and nonce, never by the signature.
func Verify(key, nonce, signature string) (Key, error) {
	if len(key) != keyLength || len(signature) != signatureLen || !IsNonce(nonce) {
		return "", ErrInvalid
	}
	public, canonical, err := parse(key)
	if err != nil {
		return "", ErrInvalid
	}
	var rs [signatureLen / 2]byte
	if _, err := hex.Decode(rs[:], []byte(signature)); err != nil {
		return "", ErrInvalid
	}
	sum := sha256.Sum256([]byte(nonce))
	// ecdsa.Verify refuses r and s outside [1, n-1] (FIPS 186-5 section 6.4.2).
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:])) {
		return "", ErrInvalid
	}
	return canonical, nil
}

// ParseKey reads a key as Verify does.
func ParseKey(text string) (Key, error) {
	_, key, err := parse(text)
	return key, err
}

func parse(text string) (*ecdsa.PublicKey, Key, error) {
	var point [keyLength / 2]byte
	if len(text) != keyLength {
		return nil, "", ErrInvalid
	}
	if _, err := hex.Decode(point[:], []byte(text)); err != nil {
		return nil, "", ErrInvalid
	}
	// Nil for a first byte other than 2 and 3, for x that is not reduced, and where no point of the curve has that x.
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point[:])
	if x == nil {
		return nil, "", ErrInvalid
	}
	uncompressed := make([]byte, 65)
	uncompressed[0] = 4
	x.FillBytes(uncompressed[1:33])
	y.FillBytes(uncompressed[33:])
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return nil, "", ErrInvalid
	}
	return public, Key(hex.EncodeToString(point[:])), nil
}

// IsNonce reports whether text can be a nonce.
func IsNonce(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return text != "" && len(text) <= MaxNonce
}
