package demo

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func token(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(claims)) + "." + strings.Repeat("s", 86)
}

func TestNothingThatLetsAReaderInIsPrinted(t *testing.T) {
	session := token(`{"scope":"user:basic","sid":"s","iat":100,"exp":43300}`)
	rows := []struct{ name, text, want string }{
		{"a session", `{"jwt":"` + session + `","a":1}`, `{"jwt":<session user:basic, 12h>,"a":1}`},
		{"a session in a header", "Bearer " + session, "Bearer <session user:basic, 12h>"},
		{
			"an elevated token", token(`{"scope":"wallet:export","singleUse":true,"iat":100,"exp":400}`),
			"<elevated wallet:export, single-use, 5m>",
		},
		{
			"one that is not single-use", token(`{"scope":"credential:link","singleUse":false,"iat":100,"exp":700}`),
			"<elevated credential:link, 10m>",
		},
		{"the backend's own word", token(`{"scope":"wallet:export","iat":100,"exp":160}`), "<assertion wallet:export, 1m>"},
		{"a mailed code", `{"verificationToken":"424242"}`, `{"verificationToken":<secret>}`},
		{"a code of an app", `{"code":"123456","type":"totp"}`, `{"code":<secret>,"type":"totp"}`},
		{"the secret of an app", `{"secret":"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"}`, `{"secret":<secret>}`},
		{"a link", "https://wallet.example/?deviceRegistrationToken=0d2c-77", "https://wallet.example/?deviceRegistrationToken=<secret>"},
		{"an id", "/waas/5f0c21aa-0000-4000-8000-000000000000/refresh", "/waas/5f0c21aa…/refresh"},
		{"a sealed key", `"` + strings.Repeat("Ab9_", 20) + `"`, `"Ab9_Ab9_…"`},
		{"the code of a refusal", `{"code":"elevated_access_token_insufficient_scope"}`, `{"code":"elevated_access_token_insufficient_scope"}`},
	}
	for _, row := range rows {
		if got := discreet(row.text); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

func TestFoldBreaksLinesAndLosesNothing(t *testing.T) {
	json := `{"a":"one, two","b":[1,2,3],"detail":"` + strings.Repeat("word ", 12) + `","c":{"d":"e"}}`
	for _, row := range []struct {
		name, text string
		split      func(string) []string
	}{
		{"prose", strings.Repeat("a word, ", 30), words},
		{"a header", `Bearer realm="wallet", error="x", error_description="a, b and c", scope="a b"`, members},
		{"JSON", json, members},
		{"one short word", "word", members},
		{"nothing", "", words},
	} {
		lines := fold(row.text, 30, row.split)
		if got, want := strings.Join(lines, ""), row.text; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%s: got %q, want %q", row.name, got, want)
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > 30 {
				t.Errorf("%s: %q is too long", row.name, l)
			}
		}
	}
	if got := fold(`{"a":"one, two","b":1}`, 16, members); len(got) != 2 || got[0] != `{"a":"one, two",` {
		t.Errorf("got %q: a comma in quotes is no place to break", got)
	}
}

// An issuer accepts the code of the step before and after its own, and each once.
func TestThreeCodesAreGoodAtAnyTimeOfTheHalfMinute(t *testing.T) {
	for second := range 30 {
		now := time.Unix(1_800_000_000+int64(second), 0)
		a := authenticator{secret: "JBSWY3DPEHPK3PXP", now: func() time.Time { return now }}
		for n := range 3 {
			before := a.last
			if second >= 25 && n == 2 {
				now = now.Add(5 * time.Second) // it would wait for this
			}
			if _, err := a.next(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent, arrives := stepOf(now), stepOf(now.Add(onTheWay))
			if a.last <= before || a.last > sent+1 || a.last < arrives-1 {
				t.Errorf("second %d, code %d: got one of step %d, between %d and %d", second, n, a.last, arrives-1, sent+1)
			}
		}
	}
}
