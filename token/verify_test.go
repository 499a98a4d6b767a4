package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/stepward/stepward/token"
)

func TestVerifyProvesTokensOfEveryAlgorithm(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	for _, alg := range token.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			raw := ring()[alg].token(elevatedClaims())
			got, err := v.Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			want := &token.Claims{
				Issuer: issuerName, Subject: "alice", ID: "e-1", Environment: environment, Audience: []string{audience},
				Scopes: []string{"wallet:export"}, SingleUse: true,
				IssuedAt: start.Add(-time.Minute), Expires: start.Add(4 * time.Minute),
				Input: sha256.Sum256([]byte(raw[:strings.LastIndex(raw, ".")])),
				Members: map[string]any{
					"iss": issuerName, "aud": audience, "sub": "alice", "jti": "e-1", "environment_id": environment,
					"scope": "wallet:export", "singleUse": true,
					"iat": json.Number(fmt.Sprint(start.Unix() - 60)), "exp": json.Number(fmt.Sprint(start.Unix() + 240)),
				},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if !got.HasScope("wallet:export") || got.HasScope("wallet:EXPORT") || got.HasScope("wallet") || got.HasScope("") {
				t.Error("HasScope does not compare letter by letter")
			}
		})
	}
}

// TestSignature: everything but the signature is good.
func TestSignature(t *testing.T) {
	c := configOf(t, token.Elevated)
	v := newVerifier(t, c)
	good := elevatedClaims()
	rs, es := ring()["RS256"], ring()["ES256"]
	stranger := newSigner("k-ES256")
	body := func(raw string) string { return raw[:strings.LastIndex(raw, ".")+1] }
	publicPEMLike := text(rs.jwk()) // what an attacker has of the key, used as an HMAC secret
	hmacSigned := func(alg, kid string) string {
		input := b64(`{"alg":"`+alg+`","typ":"JWT","kid":"`+kid+`"}`) + "." + b64(text(good))
		signature, err := jwt.GetSigningMethod(alg).Sign(input, []byte(publicPEMLike))
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + b64(string(signature))
	}
	header := func(alg, kid string) string { return `{"alg":"` + alg + `","typ":"JWT","kid":"` + kid + `"}` }
	rows := []struct {
		name, raw, why string
	}{
		{"by a stranger's key under a known kid", stranger.token(good), "signature"},
		{"by another key of the same issuer", signer{"k-ES256", "ES256", newEC(es.private.(*ecdsa.PrivateKey).Curve)}.token(good), "signature"},
		{"of other claims", body(es.token(good)) + strings.Split(es.token(good.with("sub", "bob")), ".")[2], "signature"},
		{"one bit flipped", flip(es.token(good)), "signature"},
		{"RS256, one bit flipped", flip(rs.token(good)), "signature"},
		{"EdDSA, one bit flipped", flip(ring()["EdDSA"].token(good)), "signature"},
		{"too short", body(es.token(good)) + b64("short"), "signature"},
		{"ES256 with r and s zero", body(es.token(good)) + b64(string(make([]byte, 64))), "signature"},
		{"ES256 in ASN.1", body(es.token(good)) + b64("0E\x02 ......................................"), "signature"},
		{"RS256 with zeros before", body(rs.token(good)) + b64("\x00"+string(signatureOf(rs.token(good)))), "signature"},
		{"ES256 with zeros before", body(es.token(good)) + b64("\x00\x00"+string(signatureOf(es.token(good)))), "signature"},

		{"alg none", b64(header("none", "k-RS256")) + "." + b64(text(good)) + "." + b64("x"), "algorithm"},
		{"alg NONE", b64(header("NONE", "k-RS256")) + "." + b64(text(good)) + "." + b64("x"), "algorithm"},
		{"HS256 with the public key as secret", hmacSigned("HS256", "k-RS256"), "algorithm"},
		{"HS512 with the public key as secret", hmacSigned("HS512", "k-ES256"), "algorithm"},
		{"alg in other case", rs.sign(header("rs256", "k-RS256"), text(good)), "algorithm"},
		{"alg with a space", rs.sign(header("RS256 ", "k-RS256"), text(good)), "algorithm"},
		{"alg with a NUL", rs.sign(`{"alg":"RS256\u0000","typ":"JWT","kid":"k-RS256"}`, text(good)), "alg"},
		{"PS256, which nobody configured", signer{"k-RS256", "PS256", rs.private}.token(good), "algorithm"},
		{"ES256 by a P-384 key", signer{"k-ES384", "ES256", ring()["ES256"].private}.token(good), "not for this algorithm"},
		{"RS256 named for an EC key", rs.sign(header("RS256", "k-ES256"), text(good)), "not for this algorithm"},
		{"ES256 named for an RSA key", es.sign(header("ES256", "k-RS256"), text(good)), "not for this algorithm"},
		{"RS512 by the key that says RS256", signer{"k-RS256", "RS512", rs.private}.token(good), "not for this algorithm"},
		{"EdDSA named for an EC key", ring()["EdDSA"].sign(header("EdDSA", "k-ES256"), text(good)), "not for this algorithm"},
		{"unknown kid", signer{"k-9", "ES256", es.private}.token(good), "unknown key"},
		{"kid that is a path", signer{"../../dev/null", "ES256", es.private}.token(good), "unknown key"},
		{"kid that is a query", signer{"k' OR '1'='1", "ES256", es.private}.token(good), "unknown key"},
		{"kid in other case", signer{"K-ES256", "ES256", es.private}.token(good), "unknown key"},
		{"kid with a space behind", signer{"k-ES256 ", "ES256", es.private}.token(good), "unknown key"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), r.raw)
			expect(t, r.raw, got, err, "invalid", r.why)
		})
	}
}

func flip(raw string) string {
	input, signature := raw[:strings.LastIndex(raw, ".")], signatureOf(raw)
	signature[len(signature)/2] ^= 1
	return input + "." + b64(string(signature))
}

func signatureOf(raw string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(raw[strings.LastIndex(raw, ".")+1:])
	if err != nil {
		panic(err)
	}
	return b
}

// TestForm: whatever is not one token, spelled in the one way, is malformed before anything is read of it.
func TestForm(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	es := ring()["ES256"]
	good := es.token(elevatedClaims())
	parts := strings.Split(good, ".")
	// 64 bytes leave two bits in the last letter, of which the lower four stand for nothing: another letter, the same bytes.
	stray := good[:len(good)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[letter(good[len(good)-1])+1])
	if got, err := jwt.Parse(stray, publicKey(es), jwt.WithoutClaimsValidation()); err != nil || !got.Valid {
		t.Fatalf("golang-jwt refuses the other spelling by itself: %v", err)
	}
	rows := []struct{ name, raw string }{
		{"empty", ""},
		{"dots only", ".."},
		{"one part", parts[0]},
		{"two parts", parts[0] + "." + parts[1]},
		{"four parts", good + "." + parts[2]},
		{"five parts, as a JWE has", good + "." + parts[2] + "." + parts[2]},
		{"dot at the end", good + "."},
		{"dot at the start", "." + good},
		{"no header", "." + parts[1] + "." + parts[2]},
		{"no payload", parts[0] + ".." + parts[2]},
		{"no signature", parts[0] + "." + parts[1] + "."},
		{"alg none without signature", b64(`{"alg":"none","typ":"JWT","kid":"k"}`) + "." + parts[1] + "."},
		{"space before", " " + good},
		{"space behind", good + " "},
		{"Bearer before", "Bearer " + good},
		{"newline behind", good + "\n"},
		{"CR LF in the signature", good[:len(good)-4] + "\r\n" + good[len(good)-4:]},
		{"newline in the header", good[:4] + "\n" + good[4:]},
		{"NUL behind", good + "\x00"},
		{"tab", good[:9] + "\t" + good[9:]},
		{"padded signature", good + "=="},
		{"padded header", b64(`{"alg":"ES256"}`) + "=." + parts[1] + "." + parts[2]},
		{"standard alphabet", strings.ReplaceAll(strings.ReplaceAll(good, "-", "+"), "_", "/") + "+"},
		{"percent", good + "%3D"},
		{"not ASCII", good + "é"},
		{"one letter too many", good + "AAA"},
		{"stray bits in the signature", stray},
		{"stray bits in the header", strayBits(`{"alg":"ES256","typ":"JWT","kid":"k-ES256"}`) + "." + parts[1] + "." + parts[2]},
		{"two tokens", good + "," + good},
		{"too long", es.token(elevatedClaims().with("pad", strings.Repeat("x", token.MaxBytes)))},
		{"long and nothing else", strings.Repeat("A", token.MaxBytes+1)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), r.raw)
			expect(t, "", got, err, "malformed", "")
		})
	}
}

func letter(b byte) int {
	return strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", b)
}

// strayBits spells a text, of a length that is no multiple of three, in the second way.
func strayBits(s string) string {
	for len(s)%3 == 0 {
		s += " "
	}
	e := b64(s)
	return e[:len(e)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[letter(e[len(e)-1])+1])
}

func publicKey(s signer) jwt.Keyfunc {
	return func(*jwt.Token) (any, error) { return s.private.Public(), nil }
}

func TestTheLongestToken(t *testing.T) {
	es := ring()["ES256"]
	v := newVerifier(t, configOf(t, token.Elevated))
	pad := 5000
	raw := es.token(elevatedClaims().with("pad", strings.Repeat("x", pad)))
	for len(raw) < token.MaxBytes-2 {
		pad++
		raw = es.token(elevatedClaims().with("pad", strings.Repeat("x", pad)))
	}
	if len(raw) > token.MaxBytes {
		t.Fatalf("made %d bytes", len(raw))
	}
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
}

// TestHeader: the signature covers the header as written, so only our reading of it can refuse.
func TestHeader(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	es := ring()["ES256"]
	with := func(members string) string { return `{"alg":"ES256","typ":"JWT","kid":"k-ES256",` + members + `}` }
	rows := []struct {
		name, header, kind, why string
	}{
		{"plain", es.header(), "ok", ""},
		{"white space", " {\n\t\"alg\" : \"ES256\" , \"typ\":\"JWT\", \"kid\":\"k-ES256\" }\r\n", "ok", ""},
		{"member we do not know", with(`"sid":"1","nonce":{"a":[1]}`), "ok", ""},
		{"names with escapes", `{"\u0061lg":"ES256","typ":"JWT","kid":"k-ES25\u0036"}`, "ok", ""},

		{"crit, unknown", with(`"crit":["x"],"x":1`), "invalid", "never accepted"},
		{"crit, empty", with(`"crit":[]`), "invalid", "never accepted"},
		{"crit, null", with(`"crit":null`), "invalid", "never accepted"},
		{"Crit", with(`"Crit":["exp"]`), "invalid", "never accepted"},
		{"b64 false", with(`"b64":false`), "invalid", "never accepted"},
		{"b64 true", with(`"b64":true`), "invalid", "never accepted"},
		{"zip", with(`"zip":"DEF"`), "invalid", "never accepted"},
		{"cty", with(`"cty":"JWT"`), "invalid", "never accepted"},
		{"jku", with(`"jku":"https://evil.example/jwks"`), "invalid", "never accepted"},
		{"jwk", with(`"jwk":` + text(es.jwk())), "invalid", "never accepted"},
		{"jwk with a Kelvin sign", with(`"jwK":{}`), "invalid", "never accepted"},
		{"x5u", with(`"x5u":"https://evil.example/cert"`), "invalid", "never accepted"},
		{"x5c", with(`"x5c":["MII"]`), "invalid", "never accepted"},
		{"x5t", with(`"x5t":"AA"`), "invalid", "never accepted"},
		{"X5T#S256", with(`"X5T#S256":"AA"`), "invalid", "never accepted"},

		{"alg twice", `{"alg":"none","alg":"ES256","typ":"JWT","kid":"k-ES256"}`, "invalid", "duplicate"},
		{"alg twice by an escape", with(`"\u0061lg":"none"`), "invalid", "duplicate"},
		{"ALG beside alg", with(`"ALG":"none"`), "invalid", "duplicate"},
		{"Alg alone", `{"Alg":"ES256","typ":"JWT","kid":"k-ES256"}`, "invalid", "by case"},
		{"kid with a Kelvin sign", `{"alg":"ES256","typ":"JWT","Kid":"k-ES256"}`, "invalid", "by case"},
		{"twice within a member", with(`"x":{"a":1,"a":2}`), "invalid", "duplicate"},

		{"no alg", `{"typ":"JWT","kid":"k-ES256"}`, "invalid", "alg is missing"},
		{"alg a list", `{"alg":["ES256"],"typ":"JWT","kid":"k-ES256"}`, "invalid", "alg"},
		{"alg null", `{"alg":null,"typ":"JWT","kid":"k-ES256"}`, "invalid", "alg"},
		{"alg empty", `{"alg":"","typ":"JWT","kid":"k-ES256"}`, "invalid", "alg"},
		{"alg long", `{"alg":"` + strings.Repeat("E", 17) + `","typ":"JWT","kid":"k-ES256"}`, "invalid", "alg"},

		{"no typ", `{"alg":"ES256","kid":"k-ES256"}`, "invalid", "type"},
		{"typ in other case", `{"alg":"ES256","typ":"jwt","kid":"k-ES256"}`, "invalid", "type"},
		{"typ of an access token", `{"alg":"ES256","typ":"at+jwt","kid":"k-ES256"}`, "invalid", "type"},
		{"typ as a media type", `{"alg":"ES256","typ":"application/jwt","kid":"k-ES256"}`, "invalid", "type"},
		{"typ empty", `{"alg":"ES256","typ":"","kid":"k-ES256"}`, "invalid", "typ"},
		{"typ a number", `{"alg":"ES256","typ":1,"kid":"k-ES256"}`, "invalid", "typ"},

		{"no kid", `{"alg":"ES256","typ":"JWT"}`, "invalid", "kid is missing"},
		{"kid empty", `{"alg":"ES256","typ":"JWT","kid":""}`, "invalid", "kid"},
		{"kid a number", `{"alg":"ES256","typ":"JWT","kid":1}`, "invalid", "kid"},
		{"kid with a newline", `{"alg":"ES256","typ":"JWT","kid":"k\n"}`, "invalid", "kid"},
		{"kid not ASCII", `{"alg":"ES256","typ":"JWT","kid":"ключ"}`, "invalid", "not printable"},
		{"kid long", `{"alg":"ES256","typ":"JWT","kid":"` + strings.Repeat("k", 129) + `"}`, "invalid", "kid"},

		{"a list", `[]`, "invalid", "not a JSON object"},
		{"a string", `"alg"`, "invalid", "not a JSON object"},
		{"null", `null`, "invalid", "not a JSON object"},
		{"cut short", `{"alg":"ES256","typ":"JWT","kid":"k-ES256"`, "invalid", "not a JSON object"},
		{"something behind", es.header() + "x", "invalid", "not a JSON object"},
		{"two objects", es.header() + es.header(), "invalid", "not a JSON object"},
		{"NUL behind", es.header() + "\x00", "invalid", "not a JSON object"},
		{"byte order mark", "\ufeff" + es.header(), "invalid", "not a JSON object"},
		{"comment", `{"alg":"ES256",/**/"typ":"JWT","kid":"k-ES256"}`, "invalid", "not a JSON object"},
		{"comma behind", with(`"x":1,`), "invalid", "not a JSON object"},
		{"invalid UTF-8", with("\"x\":\"\xff\""), "invalid", "UTF-8"},
		{"lone surrogate", with(`"x":"\ud800"`), "invalid", "surrogate"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			raw := es.sign(r.header, text(elevatedClaims()))
			got, err := v.Verify(t.Context(), raw)
			expect(t, raw, got, err, r.kind, r.why)
		})
	}
}

func TestTypes(t *testing.T) {
	es := ring()["ES256"]
	bare := `{"alg":"ES256","kid":"k-ES256"}`
	access := `{"alg":"ES256","kid":"k-ES256","typ":"at+jwt"}`
	rows := []struct {
		name, header string
		types        []string
		kind         string
	}{
		{"nil means JWT", es.header(), nil, "ok"},
		{"nil wants one", bare, nil, "invalid"},
		{"empty word accepts a token without one", bare, []string{""}, "ok"},
		{"empty word accepts nothing else", es.header(), []string{""}, "invalid"},
		{"several", access, []string{"JWT", "at+jwt"}, "ok"},
		{"another", es.header(), []string{"at+jwt"}, "invalid"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := configOf(t, token.Elevated)
			c.Issuers[0].Types = r.types
			raw := es.sign(r.header, text(elevatedClaims()))
			got, err := newVerifier(t, c).Verify(t.Context(), raw)
			expect(t, raw, got, err, r.kind, "")
		})
	}
}

// TestPayload: rows give the text of the payload's last member, or with "{" the whole.
func TestPayload(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	es := ring()["ES256"]
	base := elevatedClaims()
	nested := func(depth int) string { return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) }
	rows := []struct {
		name    string
		without string // a claim that is left out
		member  string
		kind    string
		why     string
	}{
		{"as issued", "", `"x":1`, "ok", ""},
		{"unicode in a value", "", `"name":"Ünïcödé \ud83d\ude00 ｗ"`, "ok", ""},
		{"unicode in the subject", "sub", `"sub":"Ünïcödé"`, "ok", ""},
		{"as deep as allowed", "", `"x":` + nested(7), "ok", ""},
		{"deeper", "", `"x":` + nested(8), "invalid", "nested"},
		{"deeper by arrays", "", `"x":` + strings.Repeat("[", 8) + strings.Repeat("]", 8), "invalid", "nested"},
		{"much deeper", "", `"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "invalid", "nested"},

		{"exp twice", "", `"exp":1`, "invalid", "duplicate"},
		{"exp twice by an escape", "", `"e\u0078p":99999999999`, "invalid", "duplicate"},
		{"EXP beside exp", "", `"EXP":99999999999`, "invalid", "duplicate"},
		{"EXP alone", "exp", `"EXP":99999999999`, "invalid", "by case"},
		{"long s in scope beside it", "", `"ſcope":"wallet:sign"`, "invalid", "duplicate"},
		{"long s in scope alone", "scope", `"\u017fcope":"wallet:sign"`, "invalid", "by case"},
		{"singleuse", "singleUse", `"singleuse":false`, "invalid", "by case"},
		{"SingleUse beside it", "", `"SingleUse":false`, "invalid", "duplicate"},
		{"Environment_ID", "environment_id", `"Environment_ID":"env-1"`, "invalid", "by case"},
		{"twice at depth", "", `"x":[{"y":{"a":1,"b":2,"a":3}}]`, "invalid", "duplicate"},
		{"twins at depth", "", `"x":[{"y":{"Aa":1,"aA":3}}]`, "invalid", "duplicate"},
		{"twins beyond ASCII", "", `"x":{"Ω":1,"Ω":2}`, "invalid", "duplicate"},
		{"same name in two objects", "", `"x":[{"a":1},{"a":2}]`, "ok", ""},
		{"camel case", "", `"verifiedCredentials":[],"verifiedCredential":1`, "ok", ""},

		{"exp a string", "exp", `"exp":"99999999999"`, "invalid", "exp"},
		{"exp null", "exp", `"exp":null`, "invalid", "exp"},
		{"exp true", "exp", `"exp":true`, "invalid", "exp"},
		{"exp a list", "exp", `"exp":[1]`, "invalid", "exp"},
		{"exp negative", "exp", `"exp":-1`, "invalid", "exp"},
		{"exp minus zero", "exp", `"exp":-0`, "invalid", "exp"},
		{"exp with an exponent", "exp", `"exp":1e11`, "invalid", "exp"},
		{"exp 2^40", "exp", `"exp":1099511627776`, "invalid", "exp is out of range"},
		{"exp 9e18 in digits", "exp", `"exp":9000000000000000000`, "invalid", "exp is out of range"},
		{"exp beyond int64", "exp", `"exp":99999999999999999999`, "invalid", "exp is out of range"},
		{"exp 1e400", "exp", `"exp":1e400`, "invalid", "number"},
		{"exp of 400 digits", "exp", `"exp":` + strings.Repeat("9", 400), "invalid", "number"},
		{"exp NaN", "exp", `"exp":NaN`, "invalid", "not a JSON object"},
		{"exp Infinity", "exp", `"exp":Infinity`, "invalid", "not a JSON object"},
		{"exp hexadecimal", "exp", `"exp":0x7fffffff`, "invalid", "not a JSON object"},
		{"exp with a zero before", "exp", `"exp":01790857000`, "invalid", "not a JSON object"},
		{"nbf 1e19, which wraps to the past elsewhere", "", `"nbf":1e19`, "invalid", "nbf"},
		{"nbf a string", "", `"nbf":"0"`, "invalid", "nbf"},
		{"iat a string", "iat", `"iat":"0"`, "invalid", "iat"},
		{"number beyond float64 elsewhere", "", `"x":{"y":[1e309]}`, "invalid", "number"},
		{"number too near to zero", "", `"x":1e-600000000`, "invalid", "number"},
		{"number too near to zero in digits", "", `"x":0.` + strings.Repeat("0", 400) + `1`, "invalid", "number"},
		{"zero with an exponent", "", `"x":[0e9,0.00,-0]`, "ok", ""},
		{"large number elsewhere", "", `"x":123456789012345678901234567890.5`, "ok", ""},

		{"iss missing", "iss", `"x":1`, "invalid", "iss is missing"},
		{"iss null", "iss", `"iss":null`, "invalid", "iss"},
		{"iss a list", "iss", `"iss":["` + issuerName + `"]`, "invalid", "iss"},
		{"iss empty", "iss", `"iss":""`, "invalid", "iss"},
		{"iss with a slash behind", "iss", `"iss":"` + issuerName + `/"`, "invalid", "issuer"},
		{"iss with a scheme", "iss", `"iss":"https://` + issuerName + `"`, "invalid", "issuer"},
		{"iss a prefix", "iss", `"iss":"app.dynamicauth.com"`, "invalid", "issuer"},
		{"iss with something behind", "iss", `"iss":"` + issuerName + `0"`, "invalid", "issuer"},
		{"iss with something before", "iss", `"iss":"evil.` + issuerName + `"`, "invalid", "issuer"},
		{"iss in other case", "iss", `"iss":"App.dynamicauth.com/env-1"`, "invalid", "issuer"},
		{"iss with a space", "iss", `"iss":" ` + issuerName + `"`, "invalid", "issuer"},
		{"iss with a newline", "iss", `"iss":"` + issuerName + `\n"`, "invalid", "iss"},
		{"iss in full width", "iss", `"iss":"ａpp.dynamicauth.com/env-1"`, "invalid", "issuer"},
		{"iss by escapes is the same text", "iss", `"iss":"app.dynamicauth.com\/env\u002d1"`, "ok", ""},

		{"aud missing", "aud", `"x":1`, "invalid", "audience"},
		{"aud null", "aud", `"aud":null`, "invalid", "aud is null"},
		{"aud empty", "aud", `"aud":""`, "invalid", "audience"},
		{"aud a number", "aud", `"aud":1`, "invalid", "aud"},
		{"aud an object", "aud", `"aud":{"a":"` + audience + `"}`, "invalid", "aud"},
		{"aud an empty list", "aud", `"aud":[]`, "invalid", "audience"},
		{"aud a list", "aud", `"aud":["` + audience + `"]`, "ok", ""},
		{"aud a list of several", "aud", `"aud":["https://other.example","` + audience + `"]`, "ok", ""},
		{"aud a list with a number", "aud", `"aud":["` + audience + `",1]`, "invalid", "aud"},
		{"aud a list in a list", "aud", `"aud":[["` + audience + `"]]`, "invalid", "aud"},
		{"aud another", "aud", `"aud":"https://other.example"`, "invalid", "audience"},
		{"aud with a slash behind", "aud", `"aud":"` + audience + `/"`, "invalid", "audience"},
		{"aud a prefix", "aud", `"aud":"https://wallet"`, "invalid", "audience"},
		{"aud in other case", "aud", `"aud":"https://Wallet.example"`, "invalid", "audience"},
		{"aud two in one string", "aud", `"aud":"` + audience + ` https://other.example"`, "invalid", "audience"},

		{"sub missing", "sub", `"x":1`, "invalid", "sub"},
		{"sub empty", "sub", `"sub":""`, "invalid", "sub"},
		{"sub a number", "sub", `"sub":1`, "invalid", "sub"},
		{"sub null", "sub", `"sub":null`, "invalid", "sub"},
		{"sub with a control", "sub", `"sub":"alice\u0000"`, "invalid", "sub"},
		{"sub with a C1 control", "sub", `"sub":"alice\u0085"`, "invalid", "sub"},
		{"sub long", "sub", `"sub":"` + strings.Repeat("a", 257) + `"`, "invalid", "sub"},
		{"sub as long as allowed", "sub", `"sub":"` + strings.Repeat("a", 256) + `"`, "ok", ""},
		{"jti missing", "jti", `"x":1`, "ok", ""},
		{"jti empty", "jti", `"jti":""`, "invalid", "jti"},
		{"jti null", "jti", `"jti":null`, "invalid", "jti"},
		{"jti a number", "jti", `"jti":1`, "invalid", "jti"},
		{"jti long", "jti", `"jti":"` + strings.Repeat("j", 129) + `"`, "invalid", "jti"},
		{"environment missing", "environment_id", `"x":1`, "ok", ""},
		{"environment another", "environment_id", `"environment_id":"env-2"`, "invalid", "environment"},
		{"environment in other case", "environment_id", `"environment_id":"ENV-1"`, "invalid", "environment"},
		{"environment null", "environment_id", `"environment_id":null`, "invalid", "environment"},
		{"environment a list", "environment_id", `"environment_id":["env-1"]`, "invalid", "environment"},

		{"scope missing", "scope", `"x":1`, "invalid", "scope"},
		{"scope empty", "scope", `"scope":""`, "invalid", "scope"},
		{"scope null", "scope", `"scope":null`, "invalid", "scope"},
		{"scope a list", "scope", `"scope":["wallet:export"]`, "invalid", "scope"},
		{"scope with two spaces", "scope", `"scope":"wallet:export  wallet:sign"`, "invalid", "scope"},
		{"scope with a space before", "scope", `"scope":" wallet:export"`, "invalid", "scope"},
		{"scope with a space behind", "scope", `"scope":"wallet:export "`, "invalid", "scope"},
		{"scope with a tab", "scope", `"scope":"wallet:export\twallet:sign"`, "invalid", "scope"},
		{"scope with a newline", "scope", `"scope":"wallet:export\nwallet:sign"`, "invalid", "scope"},
		{"scope with a space of another kind", "scope", `"scope":"wallet:export\u00a0wallet:sign"`, "invalid", "scope"},
		{"scope with a quote", "scope", `"scope":"wallet:export\""`, "invalid", "scope"},
		{"scope with a backslash", "scope", `"scope":"wallet:export\\"`, "invalid", "scope"},
		{"scope not ASCII", "scope", `"scope":"wället:export"`, "invalid", "scope"},
		{"scope with a comma is one scope", "scope", `"scope":"wallet:export,wallet:sign"`, "ok", ""},
		{"scope nobody knows", "scope", `"scope":"wallet:teleport"`, "ok", ""},
		{"all 34 scopes", "scope", `"scope":"` + strings.Join(token.DefaultElevatedScopes(), " ") + `"`, "ok", ""},

		{"singleUse missing", "singleUse", `"x":1`, "ok", ""},
		{"singleUse false", "singleUse", `"singleUse":false`, "ok", ""},
		{"singleUse a string", "singleUse", `"singleUse":"true"`, "invalid", "singleUse"},
		{"singleUse a number", "singleUse", `"singleUse":1`, "invalid", "singleUse"},
		{"singleUse null", "singleUse", `"singleUse":null`, "invalid", "singleUse"},

		{"invalid UTF-8", "", "\"x\":\"\xc0\xaf\"", "invalid", "UTF-8"},
		{"surrogates in UTF-8", "", "\"x\":\"\xed\xa0\x80\"", "invalid", "UTF-8"},
		{"high surrogate alone", "", `"x":"\ud83d"`, "invalid", "surrogate"},
		{"low surrogate alone", "", `"x":"\ude00"`, "invalid", "surrogate"},
		{"surrogates the wrong way", "", `"x":"\ude00\ud83d"`, "invalid", "surrogate"},
		{"high surrogate before a letter", "", `"x":"\ud83dabcdefgh"`, "invalid", "surrogate"},
		{"two high surrogates", "", `"x":"\ud83d\ud83d"`, "invalid", "surrogate"},
		{"surrogate in a name", "", `"\udc00":1`, "invalid", "surrogate"},
		{"escaped backslash before u", "", `"x":"\\ud83d"`, "ok", ""},
		{"control in a string", "", "\"x\":\"\n\"", "invalid", "not a JSON object"},

		{"a list", "", `[]`, "invalid", "not a JSON object"},
		{"null", "", `null`, "invalid", "not a JSON object"},
		{"empty object", "", `{}`, "invalid", "iss"},
		{"something behind", "", text(base) + `x`, "invalid", "not a JSON object"},
		{"object behind", "", text(base) + `{}`, "invalid", "not a JSON object"},
		{"white space around", "", " \t\r\n" + text(base) + "\n ", "ok", ""},
		{"a token within", "", es.token(base), "invalid", "not a JSON object"},
		{"cut short", "", text(base)[:20], "invalid", "not a JSON object"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			payload := r.member
			if strings.HasPrefix(r.member, `"`) {
				payload = strings.TrimSuffix(text(base.without(r.without)), "}") + "," + r.member + "}"
			}
			raw := es.sign(es.header(), payload)
			got, err := v.Verify(t.Context(), raw)
			expect(t, raw, got, err, r.kind, r.why)
		})
	}
}

func TestScopesArriveInOrder(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	all := token.DefaultElevatedScopes()
	if len(all) != 34 {
		t.Errorf("got %d elevated scopes, want the 34 of Dynamic's enum", len(all))
	}
	got, err := v.Verify(t.Context(), ring()["ES256"].token(elevatedClaims().with("scope", strings.Join(all, " "))))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Scopes, all) {
		t.Errorf("got %v", got.Scopes)
	}
}

// TestTimes puts now at the borders: leeway is 10 s, and a token is expired from exp + leeway on.
func TestTimes(t *testing.T) {
	es := ring()["ES256"]
	at := func(d time.Duration) int64 { return start.Add(d).Unix() }
	const ms = time.Millisecond
	rows := []struct {
		name          string
		iat, nbf, exp time.Duration
		now           time.Duration // after start
		kind          string
	}{
		{"in the middle", 0, 0, time.Minute, 30 * time.Second, "ok"},
		{"at exp", 0, 0, time.Minute, time.Minute, "ok"},
		{"just inside the leeway", 0, 0, time.Minute, time.Minute + 10*time.Second - ms, "ok"},
		{"at exp and leeway", 0, 0, time.Minute, time.Minute + 10*time.Second, "expired"},
		{"long after", 0, 0, time.Minute, 24 * time.Hour, "expired"},
		{"issued now", time.Minute, 0, 2 * time.Minute, time.Minute, "ok"},
		{"issued one leeway ahead", time.Minute, 0, 2 * time.Minute, 50 * time.Second, "ok"},
		{"issued just beyond it", time.Minute, 0, 2 * time.Minute, 50*time.Second - ms, "invalid"},
		{"not before, one leeway ahead", 0, time.Minute, 2 * time.Minute, 50 * time.Second, "ok"},
		{"not before, just beyond it", 0, time.Minute, 2 * time.Minute, 50*time.Second - ms, "invalid"},
		{"expired and not yet valid is invalid", 0, time.Hour, time.Minute, 2 * time.Minute, "invalid"},
		{"as long as the cap", 0, 0, 10 * time.Minute, 0, "ok"},
		{"the cap and leeway", 0, 0, 10*time.Minute + 10*time.Second, 0, "ok"},
		{"a second more", 0, 0, 10*time.Minute + 11*time.Second, 0, "invalid"},
		{"expired, longer than the cap", 0, 0, time.Hour, 2 * time.Hour, "invalid"},
		{"exp before iat", 0, 0, -5 * time.Second, 0, "ok"},
	}
	for _, r := range rows {
		for _, cached := range []int{-1, 0} {
			t.Run(fmt.Sprint(r.name, " cache ", cached), func(t *testing.T) {
				c := configOf(t, token.Elevated)
				c.CacheSize, c.Now = cached, fixed(start.Add(r.now))
				raw := es.token(elevatedClaims().with("iat", at(r.iat)).with("nbf", at(r.nbf)).with("exp", at(r.exp)))
				got, err := newVerifier(t, c).Verify(t.Context(), raw)
				expect(t, raw, got, err, r.kind, "")
			})
		}
	}
}

func TestFractionsOfSecondsAreCut(t *testing.T) {
	c := configOf(t, token.Elevated)
	c.Leeway = 0
	v := newVerifier(t, c)
	raw := ring()["ES256"].token(elevatedClaims().with("exp", json.Number(fmt.Sprintf("%d.999", start.Unix()+1))))
	got, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(time.Second); !got.Expires.Equal(want) {
		t.Errorf("got %v, want %v", got.Expires, want)
	}
}

// TestExpiredIsSaidLast: "expired" admits that all else was good, so nothing else may be wrong.
func TestExpiredIsSaidLast(t *testing.T) {
	c := configOf(t, token.Elevated)
	c.Now, c.RequireJTI = fixed(start.Add(time.Hour)), true
	v := newVerifier(t, c)
	es := ring()["ES256"]
	good := elevatedClaims()
	rows := []struct{ name, raw, kind string }{
		{"only expired", es.token(good), "expired"},
		{"bad signature", flip(es.token(good)), "invalid"},
		{"stranger's key", newSigner("k-ES256").token(good), "invalid"},
		{"unknown kid", newSigner("k-9").token(good), "invalid"},
		{"other audience", es.token(good.with("aud", "x")), "invalid"},
		{"other issuer", es.token(good.with("iss", "x")), "invalid"},
		{"other environment", es.token(good.with("environment_id", "x")), "invalid"},
		{"session scope", es.token(good.with("scope", "user:basic")), "invalid"},
		{"no jti", es.token(good.without("jti")), "invalid"},
		{"malformed", es.token(good) + "=", "malformed"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), r.raw)
			expect(t, r.raw, got, err, r.kind, "")
		})
	}
	_, err := v.Verify(t.Context(), es.token(good))
	var expired *token.ExpiredError
	if !errors.As(err, &expired) || expired.Claims.Subject != "alice" || expired.Claims.Environment != environment {
		t.Errorf("got %v without the claims that its owner is recognised by", err)
	}
	if errors.Is(err, token.ErrInvalid) || errors.Is(err, token.ErrMalformed) {
		t.Errorf("expired is also %v", err)
	}
}

// TestPurposes: for every token there is at most one purpose, unless an issuer's scopes are missing from the configuration.
func TestPurposes(t *testing.T) {
	verifiers := []*token.Verifier{}
	for _, p := range []token.Purpose{token.Session, token.Elevated, token.MFA} {
		c := configOf(t, p)
		c.CacheSize = -1
		verifiers = append(verifiers, newVerifier(t, c))
	}
	session, elevated, mfa := sessionClaims(), elevatedClaims(), mfaClaims()
	soon := start.Add(4 * time.Minute).Unix()
	short := session.with("exp", soon).with("iat", start.Unix())
	rows := []struct {
		name   string
		claims claims
		want   string // the answers as session, elevated and MFA token
	}{
		{"session", session, "ok invalid invalid"},
		{"session as short as a step-up", short, "ok invalid invalid"},
		{"session without scopes", short.without("scope"), "ok invalid invalid"},
		{"session with the empty scope", short.with("scope", ""), "ok invalid invalid"},
		{"session that waits for its second factor", short.with("scope", "requiresAdditionalAuth"), "ok invalid invalid"},
		{"session that waits for its device", short.with("scope", "device:register"), "ok invalid invalid"},
		{"session that waits for user data", short.with("scope", "userDataForm"), "ok invalid invalid"},
		{"backup token", short.with("scope", "waasBackupToken"), "ok invalid invalid"},
		{"session with a gate's word", short.with("scope", "user:basic gold:member"), "ok invalid invalid"},
		{"session with a gate's word that is an elevated scope", short.with("scope", "user:basic wallet:export"), "ok invalid invalid"},
		{"session in the other order", short.with("scope", "wallet:export user:basic"), "ok invalid invalid"},
		{"session that says singleUse", short.with("singleUse", false), "invalid invalid invalid"},
		{"session without sub", short.without("sub"), "invalid invalid invalid"},
		{"session without exp", session.without("exp"), "invalid invalid invalid"},
		{"session without iat", session.without("iat"), "ok invalid invalid"},

		{"elevated", elevated, "invalid ok invalid"},
		{"elevated, time-bound", elevated.with("singleUse", false), "invalid ok invalid"},
		{"elevated, silent about singleUse", elevated.without("singleUse"), "invalid ok invalid"},
		{"elevated, several scopes", elevated.with("scope", "wallet:export wallet:sign").without("singleUse"), "invalid ok invalid"},
		{"elevated, one of its scopes unknown", elevated.with("scope", "wallet:export wallet:new").without("singleUse"), "invalid ok invalid"},
		{"elevated, scope unknown, single use", elevated.with("scope", "wallet:new"), "invalid ok invalid"},
		{"elevated without sub", elevated.without("sub"), "invalid invalid invalid"},
		{"elevated without exp", elevated.without("exp"), "invalid invalid invalid"},
		{"elevated without iat", elevated.without("iat"), "invalid invalid invalid"},
		{"elevated for a day", elevated.with("exp", start.Add(24*time.Hour).Unix()), "invalid invalid invalid"},

		{"MFA", mfa, "invalid invalid ok"},
		{"MFA, not single use", mfa.with("singleUse", false), "invalid invalid ok"},
		{"MFA with exp", mfa.with("exp", soon).with("iat", start.Unix()), "invalid invalid ok"},
		{"MFA with a scope", mfa.with("scope", "x"), "invalid invalid invalid"},
		{"MFA silent about singleUse", mfa.without("singleUse"), "invalid invalid invalid"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			raw, got := ring()["ES256"].token(r.claims), []string{}
			for _, v := range verifiers {
				_, err := v.Verify(t.Context(), raw)
				got = append(got, kindOf(err))
			}
			if got := strings.Join(got, " "); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
		})
	}
}

func TestScopeSetsAreConfiguration(t *testing.T) {
	c := configOf(t, token.Session)
	c.ElevatedScopes = []string{"vault:open"}
	c.SessionScopes = []string{"login"}
	v := newVerifier(t, c)
	for scope, want := range map[string]string{
		"vault:open": "invalid", "login": "ok", "login vault:open": "ok", "wallet:export": "ok", "vault:open x": "invalid",
	} {
		raw := ring()["ES256"].token(sessionClaims().with("scope", scope))
		got, err := v.Verify(t.Context(), raw)
		if kindOf(err) != want {
			t.Errorf("%s: got %v (%v), want %s", scope, got, err, want)
		}
	}
}

func TestRequireJTI(t *testing.T) {
	c := configOf(t, token.Elevated)
	c.RequireJTI = true
	v := newVerifier(t, c)
	raw := ring()["ES256"].token(elevatedClaims().without("jti"))
	got, err := v.Verify(t.Context(), raw)
	expect(t, raw, got, err, "invalid", "jti")
}

func TestMaxLifetimeNeedsBothTimes(t *testing.T) {
	c := configOf(t, token.Session)
	c.MaxLifetime = 3 * time.Hour
	v := newVerifier(t, c)
	for name, r := range map[string]struct {
		claims claims
		kind   string
	}{
		"within":      {sessionClaims(), "ok"},
		"beyond":      {sessionClaims().with("exp", start.Add(3*time.Hour).Unix()), "invalid"},
		"without iat": {sessionClaims().without("iat"), "invalid"},
		"centuries":   {sessionClaims().with("exp", int64(1)<<40-1), "invalid"},
	} {
		raw := ring()["ES256"].token(r.claims)
		got, err := v.Verify(t.Context(), raw)
		t.Log(name)
		expect(t, raw, got, err, r.kind, "")
	}
}

// TestRespelledTokensAreOneToken: whoever has an ECDSA token can make a second text of it that verifies too, by (r, n-s).
// The replay identity must not change with it.
func TestRespelledTokensAreOneToken(t *testing.T) {
	v := newVerifier(t, configOf(t, token.Elevated))
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		s := ring()[alg]
		raw := s.token(elevatedClaims().without("jti"))
		signature := signatureOf(raw)
		half := len(signature) / 2
		n := s.private.(*ecdsa.PrivateKey).Params().N
		other := new(big.Int).Sub(n, new(big.Int).SetBytes(signature[half:]))
		other.FillBytes(signature[half:])
		respelled := raw[:strings.LastIndex(raw, ".")+1] + b64(string(signature))
		if respelled == raw {
			t.Fatal("the signature is the same")
		}
		a, err := v.Verify(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		b, err := v.Verify(t.Context(), respelled)
		if err != nil {
			t.Fatal(err)
		}
		if a.Input != b.Input {
			t.Errorf("%s: two identities for one token", alg)
		}
		if a == b {
			t.Errorf("%s: the other text was taken for proven", alg)
		}
	}
}

// TestIssuersKeepToTheirKeys: one verifier, two environments; the keys of one say nothing about the other.
func TestIssuersKeepToTheirKeys(t *testing.T) {
	one, two := newSigner("k"), newSigner("k")
	c := configOf(t, token.Session)
	c.Issuers = []token.Issuer{
		{Environment: "env-1", Issuer: []string{"iss-1", "iss-1b"}, Audience: []string{"a-1"}, Algorithms: []string{"ES256"}, Keys: keysOf(t, one)},
		{Environment: "", Issuer: []string{"iss-2"}, Audience: []string{"a-2"}, Algorithms: []string{"ES256"}, Keys: keysOf(t, two)},
	}
	v := newVerifier(t, c)
	of := func(iss, aud, env string) claims {
		return sessionClaims().with("iss", iss).with("aud", aud).with("environment_id", env)
	}
	rows := []struct {
		name, raw, kind, environment string
	}{
		{"first", one.token(of("iss-1", "a-1", "env-1")), "ok", "env-1"},
		{"first by its other name", one.token(of("iss-1b", "a-1", "env-1")), "ok", "env-1"},
		{"first, silent about its environment", one.token(of("iss-1", "a-1", "").without("environment_id")), "ok", "env-1"},
		{"first for another environment", one.token(of("iss-1", "a-1", "env-2")), "invalid", ""},
		{"second for any environment", two.token(of("iss-2", "a-2", "env-7")), "ok", "env-7"},
		{"second, silent about its environment", two.token(of("iss-2", "a-2", "").without("environment_id")), "ok", ""},
		{"second's key as first", two.token(of("iss-1", "a-1", "env-1")), "invalid", ""},
		{"first's key as second", one.token(of("iss-2", "a-2", "env-1")), "invalid", ""},
		{"first for second's audience", one.token(of("iss-1", "a-2", "env-1")), "invalid", ""},
		{"both names in one", one.token(of("iss-1 iss-2", "a-1", "env-1")), "invalid", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), r.raw)
			expect(t, r.raw, got, err, r.kind, "")
			if got != nil && got.Environment != r.environment {
				t.Errorf("got environment %q, want %q", got.Environment, r.environment)
			}
		})
	}
}

func TestAlgorithmsArePerIssuer(t *testing.T) {
	c := configOf(t, token.Elevated)
	c.Issuers[0].Algorithms = []string{"RS256"}
	v := newVerifier(t, c)
	for _, alg := range token.Algorithms() {
		want := "invalid"
		if alg == "RS256" {
			want = "ok"
		}
		raw := ring()[alg].token(elevatedClaims())
		got, err := v.Verify(t.Context(), raw)
		expect(t, raw, got, err, want, "")
	}
}

func TestZeroValuesAcceptNothing(t *testing.T) {
	raw := ring()["ES256"].token(elevatedClaims())
	var none *token.Verifier
	for _, v := range []*token.Verifier{none, {}} {
		got, err := v.Verify(t.Context(), raw)
		expect(t, raw, got, err, "unavailable", "")
		if v.Stats() != (token.CacheStats{}) {
			t.Errorf("got %+v", v.Stats())
		}
	}
	c := configOf(t, token.Elevated)
	c.Issuers[0].Keys = &token.Keys{}
	got, err := newVerifier(t, c).Verify(t.Context(), raw)
	expect(t, raw, got, err, "unavailable", "")
	k := &token.Keys{}
	if err := k.Ready(); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("Ready: got %v", err)
	}
	if err := k.Wait(t.Context()); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("Wait: got %v", err)
	}
	if err := k.Refresh(t.Context()); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("Refresh: got %v", err)
	}
	if got := k.Stats(); got != (token.KeysStats{}) {
		t.Errorf("Stats: got %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.Run(ctx) // returns
}

func TestConfigFaultsAreNamedTogether(t *testing.T) {
	rows := []struct {
		name string
		edit func(*token.Config)
		want []string
	}{
		{"zero", func(c *token.Config) { *c = token.Config{} }, []string{"no purpose", "no clock", "no issuer"}},
		{"purpose", func(c *token.Config) { c.Purpose = 9 }, []string{"no purpose"}},
		{"leeway", func(c *token.Config) { c.Leeway = 61 * time.Second }, []string{"leeway 1m1s is not within 0 and 1m0s"}},
		{"negative", func(c *token.Config) { c.Leeway, c.MaxLifetime = -1, -1 }, []string{"leeway", "max lifetime"}},
		{"scopes", func(c *token.Config) { c.SessionScopes = []string{"wallet:sign"} }, []string{`scope "wallet:sign" is both`}},
		{"issuer", func(c *token.Config) { c.Issuers[0] = token.Issuer{Types: []string{}} }, []string{
			"issuer 0: no issuer name", "no audience", "no keys", "no algorithms", "no types",
		}},
		{"empty words", func(c *token.Config) { c.Issuers[0].Issuer, c.Issuers[0].Audience = []string{""}, []string{""} }, []string{
			"no issuer name, or an empty one", "no audience, or an empty one",
		}},
		{"none", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"none"} }, []string{`algorithm "none" is not one of`}},
		{"HS256", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"RS256", "HS256"} }, []string{`algorithm "HS256"`}},
		{"case", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"rs256"} }, []string{`algorithm "rs256"`}},
		{"shared", func(c *token.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) }, []string{"shares its keys", "is named twice"}},
		{"unnamed keys twice", func(c *token.Config) { c.Issuers = []token.Issuer{{}, {}} }, []string{"issuer 1: no issuer name"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := configOf(t, token.Elevated)
			r.edit(&c)
			v, err := token.New(c)
			if v != nil || err == nil {
				t.Fatalf("got %v, %v", v, err)
			}
			for _, want := range r.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
		})
	}
}

// TestConfigIsCopied: a caller that goes on using its slices does not change what is accepted.
func TestConfigIsCopied(t *testing.T) {
	c := configOf(t, token.Elevated)
	c.Issuers[0].Types = []string{"JWT"}
	v := newVerifier(t, c)
	c.Issuers[0].Audience[0], c.Issuers[0].Types[0], c.Issuers[0].Algorithms[0] = "evil", "evil", "HS256"
	raw := ring()["RS256"].token(elevatedClaims())
	got, err := v.Verify(t.Context(), raw)
	expect(t, raw, got, err, "ok", "")
}
