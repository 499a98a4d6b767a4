package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stepward/stepward/internal/strictjson"
)

func nested(open, inner, end string, n int) string {
	return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
}

// refused are texts about which readers differ, by fault.
var refused = []struct{ name, text, want string }{
	{"nothing", "", "not JSON"},
	{"white space", " \n", "not JSON"},
	{"a byte order mark", "\ufeff{}", "not JSON"},
	{"something behind", "{} x", "not JSON"},
	{"two values", "{}{}", "not JSON"},
	{"NUL behind", "1\x00", "not JSON"},
	{"a comment", "{/**/}", "not JSON"},
	{"a comma behind", "[1,]", "not JSON"},
	{"single quotes", "{'a':1}", "not JSON"},
	{"no quotes", "{a:1}", "not JSON"},
	{"not a number", "NaN", "not JSON"},
	{"a zero before", "01", "not JSON"},
	{"a plus", "+1", "not JSON"},
	{"a line break in a text", "\"\n\"", "not JSON"},
	{"an unknown escape", `"\x41"`, "not JSON"},
	{"cut short", `{"a":`, "not JSON"},
	{"Latin-1", "\"\xe4\"", "not valid UTF-8"},
	{"overlong", "\"\xc0\x80\"", "not valid UTF-8"},
	{"a surrogate in UTF-8", "\"\xed\xa0\x80\"", "not valid UTF-8"},
	{"a high surrogate alone", `"\ud83d"`, "lone surrogate"},
	{"a high surrogate before a letter", `"\ud83dabcdef"`, "lone surrogate"},
	{"a high surrogate before an escape", `"\ud83d\u0041"`, "lone surrogate"},
	{"two high surrogates", `"\ud83d\ud83d"`, "lone surrogate"},
	{"a low surrogate alone", `"\ude00"`, "lone surrogate"},
	{"a low surrogate after a pair", `"\ud83d\ude00\ude00"`, "lone surrogate"},
	{"a surrogate in a name", `{"\uDC00":1}`, "lone surrogate"},
	{"a surrogate behind a backslash", `"\\\ud83d"`, "lone surrogate"},
	{"a member twice", `{"a":1,"a":1}`, "duplicate member"},
	{"a member twice by escapes", `{"a":1,"\u0061":1}`, "duplicate member"},
	{"a member in another case", `{"a":1,"A":1}`, "duplicate member"},
	{"a member in two other cases", `{"Aa":1,"aA":1}`, "duplicate member"},
	{"a member with a long s", `{"scope":1,"ſcope":1}`, "duplicate member"},
	{"a member with a Kelvin sign", `{"Kid":1,"kid":1}`, "duplicate member"},
	{"a member in Greek", `{"σ":1,"ς":1}`, "duplicate member"},
	{"a member twice far below", `[{"x":{"b":[{"a":1,"a":2}]}}]`, "duplicate member"},
	{"an empty name twice", `{"":1,"":1}`, "duplicate member"},
	{"too large", "1e309", "number out of range"},
	{"gigabytes", "[1e999999999]", "number out of range"},
	{"nearly nothing", `{"a":1e-400}`, "number out of range"},
	{"a million digits", "[0." + strings.Repeat("1", 1_000_000) + "]", "number out of range"},
	{"one digit too many", strings.Repeat("1", 65), "number out of range"},
	{"a panic of OPA's", "1e-600000000", "number out of range"},
	{"lists in lists", nested("[", "", "]", 9), "nested too deeply"},
	{"objects in objects", nested(`{"a":`, "1", "}", 9), "nested too deeply"},
	{"very deep", nested("[", "", "]", 5000), "nested too deeply"},
	{"deeper than encoding/json goes", nested("[", "", "]", 20000), "not JSON"},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			if v, err := strictjson.Decode([]byte(c.text), 8); err == nil || err.Error() != c.want || v != nil {
				t.Errorf("got %v, error %v, want %q", v, err, c.want)
			}
		})
	}
}

var accepted = []string{
	"null", "true", " 1 ", `""`, "[]", "{}", `{"a":[1,2.5e3,{"b":null}]}`, `"\ud83d\ude00"`, `"\\ud83d"`, `"\ufffd\"\\"`, "123456789012345678901234567890",
	strings.Repeat("1", 64), "0.0000", "-0", "0e5", "1e308", "5e-324", `{"a":1,"b":{"a":1,"A2":1}}`, `{"ß":1,"ss":1}`, `{"i":1,"ı":2,"İ":3}`, `[{"a":1},{"a":1}]`,
	nested("[", "", "]", 8), nested(`{"a":`, `"deep"`, "}", 8),
}

func TestAcceptedAsEncodingJSONReadsIt(t *testing.T) {
	for _, text := range accepted {
		got, err := strictjson.Decode([]byte(text), 8)
		if want, _ := lenient(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, error %v, want %#v", text, got, err, want)
		}
	}
}

// lenient is what encoding/json reads; ok is false if it reads nothing or something is behind it.
func lenient(text string) (v any, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	_, err := d.Token()
	return v, errors.Is(err, io.EOF)
}

func TestObject(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1}`: "", "{}": "", " {} ": "", "[]": "not a JSON object", "null": "not a JSON object", "": "not a JSON object", "{": "not a JSON object",
		`{"a":1,"A":2}`: "duplicate member", `{"a":[[]]}`: "nested too deeply",
	} {
		got, err := strictjson.Object([]byte(text), 2)
		if (err == nil) != (want == "") || err != nil && err.Error() != want || (got == nil) != (err != nil) {
			t.Errorf("%q: got %v, error %v, want error %q", text, got, err, want)
		}
	}
}

func TestTheZeroDepthHasNoContainers(t *testing.T) {
	for text, want := range map[string]bool{"1": true, `"a"`: true, "[]": false, "{}": false} {
		if _, err := strictjson.Decode([]byte(text), 0); (err == nil) != want {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

// FuzzDecode: a text is refused if, and only if, a rule that is judged here in another way forbids it; what is accepted
// encoding/json reads to the same value, and so does a reader that folds names or takes the first of two.
func FuzzDecode(f *testing.F) {
	for _, c := range refused {
		if len(c.text) < 200 { // the fuzzer makes long ones shorter for minutes
			f.Add([]byte(c.text), byte(8))
		}
	}
	for _, text := range accepted {
		f.Add([]byte(text), byte(8))
	}
	f.Fuzz(func(t *testing.T, text []byte, depth byte) {
		got, err := strictjson.Decode(text, int(depth))
		if (err == nil) != (fault(text, int(depth)) == "") {
			t.Fatalf("%q: error %v, other rules say %q", text, err, fault(text, int(depth)))
		}
		if err != nil {
			if got != nil || len(text) > 40 && strings.Contains(err.Error(), string(text)) {
				t.Errorf("value %v beside error %v", got, err)
			}
			return
		}
		if want, _ := lenient(string(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, encoding/json reads %#v", text, got, want)
		}
		if read, written := bytes.Count([]byte(allText(got)), []byte("\ufffd")), bytes.Count(text, []byte("\ufffd"))+
			strings.Count(strings.ToLower(string(text)), `\ufffd`); read > written {
			t.Errorf("%q: %d replacement characters are read and %d written", text, read, written)
		}
		members, err := strictjson.Object(text, int(depth))
		if object, isObject := got.(map[string]any); isObject != (err == nil) || isObject && !reflect.DeepEqual(members, object) {
			t.Errorf("%q: as an object %v, error %v", text, members, err)
		}
	})
}

// fault judges a text by slower and plainer means than Decode.
func fault(text []byte, depth int) string {
	if !utf8.Valid(text) {
		return "UTF-8"
	}
	if _, ok := lenient(string(text)); !ok {
		return "syntax"
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	type level struct {
		names  []string
		object bool
		name   bool // a name is next
	}
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return surrogates(text)
		}
		top := len(levels) - 1
		isName := top >= 0 && levels[top].object && levels[top].name
		switch token := token.(type) {
		case json.Delim:
			if token == '}' || token == ']' {
				levels = levels[:top]
				continue
			}
			if top >= 0 {
				levels[top].name = levels[top].object
			}
			if levels = append(levels, level{object: token == '{', name: token == '{'}); len(levels) > depth {
				return "depth"
			}
			continue
		case string:
			if isName {
				if slices.ContainsFunc(levels[top].names, func(other string) bool { return strings.EqualFold(other, token) }) {
					return "duplicate"
				}
				levels[top].names, levels[top].name = append(levels[top].names, token), false
				continue
			}
		case json.Number:
			if beyond(token.String()) {
				return "number"
			}
		}
		if top >= 0 {
			levels[top].name = levels[top].object
		}
	}
}

// beyond reports whether a number rounds to infinity, or to zero without being it, or is longer than any number is.
func beyond(number string) bool {
	if len(number) > 64 {
		return true
	}
	f, err := json.Number(number).Float64()
	if err != nil {
		return true
	}
	if f != 0 {
		return false
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(number), "e")
	exact, ok := new(big.Rat).SetString(mantissa)
	return !ok || exact.Sign() != 0
}

// surrogates decodes every escape by hand, in each string of a text that is JSON.
func surrogates(text []byte) string {
	var units []rune // of one run of \u escapes
	judge := func() string {
		for i := 0; i < len(units); i++ {
			switch u := units[i]; {
			case u >= 0xd800 && u < 0xdc00 && i+1 < len(units) && units[i+1] >= 0xdc00 && units[i+1] < 0xe000:
				i++
			case u >= 0xd800 && u < 0xe000:
				return "surrogate"
			}
		}
		units = nil
		return ""
	}
	rest := string(text)
	for rest != "" {
		if escape, isUnit := strings.CutPrefix(rest, `\u`); isUnit {
			var u rune
			for _, digit := range strings.ToLower(escape[:4]) {
				u = u<<4 | rune(strings.IndexRune("0123456789abcdef", digit))
			}
			units, rest = append(units, u), escape[4:]
			continue
		}
		if judge() != "" {
			return "surrogate"
		}
		if rest[0] == '\\' {
			rest = rest[2:]
		} else {
			rest = rest[1:]
		}
	}
	return judge()
}

// allText is every text of a value, names too.
func allText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var b strings.Builder
		for _, item := range v {
			b.WriteString(allText(item))
		}
		return b.String()
	case map[string]any:
		var b strings.Builder
		for name, item := range v {
			b.WriteString(name + allText(item))
		}
		return b.String()
	}
	return ""
}

// FuzzFold: names fold alike if, and only if, strings.EqualFold says so.
func FuzzFold(f *testing.F) {
	for _, pair := range [][2]string{{"scope", "ſCOPE"}, {"kid", "Kid"}, {"ß", "ẞ"}, {"ss", "ß"}, {"σ", "ς"}, {"i", "İ"}, {"", ""}, {"ǅ", "ǆ"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			return // member names never are
		}
		if got, want := strictjson.Fold(a) == strictjson.Fold(b), strings.EqualFold(a, b); got != want {
			t.Errorf("%q, %q: got %t, want %t", a, b, got, want)
		}
		if once := strictjson.Fold(a); strictjson.Fold(once) != once {
			t.Errorf("%q folds to %q, which folds again", a, once)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := `{"requestedScopes":["wallet:export"],"challenge":"` + strings.Repeat("x", 600) + `","nested":{"a":[1,2,3],"Camel":true}}`
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := strictjson.Decode([]byte(body), 32); err != nil {
			b.Fatal(err)
		}
	}
}
