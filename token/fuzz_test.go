package token_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/token"
)

// FuzzForm: a text is malformed if, and only if, it is not the one spelling of three parts.
func FuzzForm(f *testing.F) {
	v := newVerifier(f, configOf(f, token.Elevated))
	for _, alg := range token.Algorithms() {
		f.Add(ring()[alg].token(elevatedClaims()))
	}
	for _, raw := range []string{"", ".", "..", "a.b.c", "e30.e30.e30", "e30.e30.e31", "e30.e30.e30\n", "e30=.e30.e30", "e30.e30.e30.e30"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := v.Verify(context.Background(), raw)
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v, %v", c, err)
		}
		if got, want := kindOf(err) == "malformed", !isCanonical(raw); got != want {
			t.Errorf("%q: malformed %t, want %t", raw, got, want)
		}
	})
}

func isCanonical(raw string) bool {
	parts := strings.Split(raw, ".")
	for _, part := range parts {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || len(part) == 0 || base64.RawURLEncoding.EncodeToString(text) != part {
			return false
		}
	}
	return len(parts) == 3 && len(raw) <= token.MaxBytes
}

// foldingHeader and foldingPayload are what a careless reader makes of a token: encoding/json folds names and takes the last
// of several. Such a backend stands behind us.
type foldingHeader struct {
	Alg, Typ, Kid string
	Crit, B64     json.RawMessage
}

type foldingPayload struct {
	Iss, Sub, Jti, Scope string
	Env                  string          `json:"environment_id"`
	Aud                  json.RawMessage `json:"aud"`
	Exp, Iat, Nbf        json.Number
	SingleUse            bool
}

// FuzzReading signs whatever the fuzzer writes. What we accept, golang-jwt and encoding/json accept too, and read the same.
func FuzzReading(f *testing.F) {
	c := configOf(f, token.Session)
	c.CacheSize = -1
	v := newVerifier(f, c)
	ed := ring()["EdDSA"]
	payload := text(sessionClaims())
	open := strings.TrimSuffix(payload, "}")
	f.Add(ed.header(), payload)
	for _, h := range []string{`{"alg":"EdDSA","typ":"JWT","kid":"k-EdDSA","crit":["x"]}`, `{"alg":"EdDSA","Alg":"none","typ":"JWT","kid":"k-EdDSA"}`, " " + ed.header() + "\n"} {
		f.Add(h, payload)
	}
	for _, p := range []string{
		open + `,"EXP":1}`, open + `,"exp":1}`, open + `,"\u017fcope":"x"}`, open + `,"x":{"a":[1,2.5e3,{"b":null}]}}`,
		open + `,"x":"\ud83d\ude00"}`, open + `,"x":"\ud800"}`, open + `,"nbf":1.5}`, open + `,"x":1e-400}`, payload + "{}",
		strings.Replace(payload, `"aud":"`+audience+`"`, `"aud":["x","`+audience+`"]`, 1), open + `,"Sub":"bob"}`,
	} {
		f.Add(ed.header(), p)
	}
	parser := jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithTimeFunc(fixed(start)),
		jwt.WithLeeway(c.Leeway), jwt.WithIssuedAt(), jwt.WithExpirationRequired(), jwt.WithIssuer(issuerName), jwt.WithAudience(audience))
	f.Fuzz(func(t *testing.T, header, payload string) {
		raw := ed.sign(header, payload)
		got, err := v.Verify(context.Background(), raw)
		if err != nil {
			expect(t, raw, got, err, kindOf(err), "")
			return
		}
		theirs, err := parser.Parse(raw, publicKey(ed))
		if err != nil {
			t.Fatalf("golang-jwt refuses it: %v", err)
		}
		if theirs.Header["kid"] != ed.kid || theirs.Header["typ"] != "JWT" || theirs.Method.Alg() != "EdDSA" {
			t.Errorf("golang-jwt reads the header %v", theirs.Header)
		}
		var h foldingHeader
		if err := json.Unmarshal([]byte(header), &h); err != nil || h.Alg != "EdDSA" || h.Kid != ed.kid || h.Typ != "JWT" || h.Crit != nil || h.B64 != nil {
			t.Errorf("a folding reader reads the header %+v, %v", h, err)
		}
		sameMembers(t, got, payload)
		sameClaims(t, got, payload)
	})
}

func sameMembers(t *testing.T, got *token.Claims, payload string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(payload))
	d.UseNumber()
	var members map[string]any
	if err := d.Decode(&members); err != nil {
		t.Fatalf("encoding/json refuses it: %v", err)
	}
	if !reflect.DeepEqual(got.Members, members) {
		t.Errorf("got %v, encoding/json reads %v", got.Members, members)
	}
}

func sameClaims(t *testing.T, got *token.Claims, payload string) {
	t.Helper()
	var p foldingPayload
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		t.Fatalf("a folding reader refuses it: %v", err)
	}
	exp, err := p.Exp.Float64()
	if err != nil || got.Expires.Unix() != int64(exp) {
		t.Errorf("got exp %v, a folding reader %v", got.Expires, p.Exp)
	}
	if p.Iss != got.Issuer || p.Sub != got.Subject || p.Jti != got.ID || p.Scope != strings.Join(got.Scopes, " ") || p.SingleUse != got.SingleUse {
		t.Errorf("got %+v, a folding reader %+v", got, p)
	}
	if p.Env != "" && p.Env != got.Environment {
		t.Errorf("got environment %q, a folding reader %q", got.Environment, p.Env)
	}
}

// FuzzSet: what is taken for a JWK Set is one to encoding/json too, without secrets, and every usable key is in it once.
func FuzzSet(f *testing.F) {
	for _, s := range ring() {
		f.Add([]byte(setOf(s)))
	}
	f.Add([]byte(setOf(ring()["RS256"], ring()["ES256"], ring()["EdDSA"])))
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"a","k":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQ","e":"AQAB"}],"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"AKP"},{"kty":"EC","crv":"P-256","kid":"\u0061","x":"","y":""}]}`))
	f.Fuzz(func(t *testing.T, set []byte) {
		kids, ignored, err := token.ReadSet(set)
		if err != nil {
			if len(set) > 8 && bytes.Contains([]byte(err.Error()), set) {
				t.Errorf("error %q holds the set", err)
			}
			return
		}
		var read struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal(set, &read); err != nil || !utf8.Valid(set) {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if len(read.Keys) != len(kids)+ignored {
			t.Errorf("%d keys, of which %d usable and %d ignored", len(read.Keys), len(kids), ignored)
		}
		for _, kid := range kids {
			n := 0
			for _, k := range read.Keys {
				if k["kid"] == kid && (k["use"] == nil || k["use"] == "sig") && k["d"] == nil && k["kty"] != "oct" {
					n++
				}
			}
			if n == 0 {
				t.Errorf("no key has kid %q", kid)
			}
		}
	})
}
