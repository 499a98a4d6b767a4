package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// authority is somebody else whose tokens are believed.
type authority struct{ issuer, audience, jwksURL string }

// remote asks other servers. It follows no redirects: an address that was configured is the one that is meant.
var remote = &http.Client{
	Timeout:       5 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// verify checks a token of another issuer, with keys that are fetched each time: an example has few visitors. Claims must embed
// jwt.RegisteredClaims. A token without exp is refused.
func (i *Issuer) verify(ctx context.Context, from authority, raw string, claims jwt.Claims) error {
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithTimeFunc(i.cfg.Now),
	}
	if from.issuer != "" {
		options = append(options, jwt.WithIssuer(from.issuer))
	}
	if from.audience != "" {
		options = append(options, jwt.WithAudience(from.audience))
	}
	keys, err := fetchKeys(ctx, from.jwksURL)
	if err != nil {
		return err
	}
	_, err = jwt.NewParser(options...).ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		for _, k := range keys {
			if k.ID == id && (k.Algorithm == "" || k.Algorithm == t.Method.Alg()) {
				return k.public()
			}
		}
		return nil, errors.New("unknown key")
	})
	return err
}

func fetchKeys(ctx context.Context, from string) ([]jwk, error) {
	var set struct{ Keys []jwk }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	err = ask(req, &set)
	return set.Keys, err
}

// ask sends a request and reads a JSON answer.
func ask(req *http.Request, into any) error {
	res, err := remote.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", req.Method, req.URL.Redacted(), res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(into); err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), err)
	}
	return nil
}

// public is the inverse of publish. Of each kind of key it knows the kinds that keys here have.
func (j jwk) public() (crypto.PublicKey, error) {
	var numbers [4][]byte
	for n, text := range []string{j.N, j.E, j.X, j.Y} {
		var err error
		if numbers[n], err = base64.RawURLEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("key %s: %w", j.ID, err)
		}
	}
	n, e, x, y := numbers[0], numbers[1], numbers[2], numbers[3]
	switch {
	case j.Type == "RSA" && len(n) >= 256 && len(e) > 0 && len(e) <= 4:
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	case j.Type == "EC" && j.Curve == "P-256" && len(x) == 32 && len(y) == 32:
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	case j.Type == "OKP" && j.Curve == "Ed25519" && len(x) == ed25519.PublicKeySize:
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("key %s: want RSA of 2048 bits or more, P-256 or Ed25519", j.ID)
}
