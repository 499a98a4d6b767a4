package gate_test

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/reason"
)

const verifying = mount + "/emailVerifications/verify" // links a credential, or verifies for a step-up

func (f *fixture) verifies(text string) reason.Reason {
	r := request("POST", verifying, auth, "Bearer alice")
	r.ReadBody = body(text)
	r.Header.Set("Content-Type", "application/json")
	return f.decide(r).Reason
}

// Each of these is read in two ways by two parsers, and one of them links.
func TestBodiesWithTwoReadings(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct{ name, body string }{
		{"a long s", `{"requestedScopes":["a"],"requeſtedScopes":[]}`},
		{"an escaped name", `{"requestedScopes":["a"],"requested\u0053copes":[]}`},
		{"twice in capitals", `{"REQUESTEDSCOPES":[],"RequestedScopes":["a"],"requestedScopes":["a"]}`},
		{"twice far below", `{"requestedScopes":["a"],"x":[{"y":{"a":1,"A":2}}]}`},
		{"Greek sigmas", `{"requestedScopes":["a"],"σ":1,"ς":2}`},
		{"a lone surrogate", `{"requestedScopes":["\ud800"]}`},
		{"a name with a lone surrogate", `{"requestedScopes":["a"],"\ude00":1}`},
		{"a byte order mark", "\ufeff" + `{"requestedScopes":["a"]}`},
		{"NUL behind", `{"requestedScopes":["a"]}` + "\x00"},
		{"white space only", " \r\n"},
		{"UTF-16", "{\x00\"\x00a\x00\"\x00:\x001\x00}\x00"},
		{"UTF-7", "+AHsAIg-"},
		{"a comment", `{"requestedScopes":["a"]/*,"requestedScopes":[]*/}`},
		{"a number beyond float64", `{"requestedScopes":["a"],"x":1e400}`},
		{"a number that costs gigabytes", `{"requestedScopes":["a"],"x":1e999999999}`},
		{"a number that is zero to some", `{"requestedScopes":["a"],"x":1e-400}`},
		{"a number that takes seconds", `{"requestedScopes":["a"],"x":0.` + strings.Repeat("3", 1000) + `}`},
		{"NaN", `{"requestedScopes":["a"],"x":NaN}`},
		{"one level too deep", strings.Repeat("[", 33) + strings.Repeat("]", 33)},
	} {
		if got := f.verifies(c.body); got != reason.BodyUnreadable {
			t.Errorf("%s: reason %q, want %q", c.name, got, reason.BodyUnreadable)
		}
	}
}

func TestBodiesWithOneReading(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		name, body string
		want       reason.Reason
	}{
		{"white space about it", "\r\n\t " + `{"requestedScopes":["a"]}` + "\n", reason.None},
		{"a pair of surrogates", `{"requestedScopes":["a"],"x":"\ud83d\ude00"}`, reason.None},
		{"large and small numbers", `{"requestedScopes":["a"],"x":[123456789012345678901234567890,1e300,-0,0.1]}`, reason.None},
		{"equal names in different objects", `{"requestedScopes":["a"],"x":{"a":1},"y":{"A":1}}`, reason.None},
		{"as deep as is allowed", `{"requestedScopes":["a"],"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "}", reason.None},
		{"the member in another case alone", `{"RequestedScopes":["a"]}`, reason.ElevatedTokenRequired},
		{"null", "null", reason.ElevatedTokenRequired},
		{"a number", "1", reason.ElevatedTokenRequired},
		{"a list", `["requestedScopes"]`, reason.ElevatedTokenRequired},
	} {
		if got := f.verifies(c.body); got != c.want {
			t.Errorf("%s: reason %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzBody: what passes without an elevated token asks for scopes in the eyes of every reader, so that no backend links.
func FuzzBody(f *testing.F) {
	for _, text := range []string{
		"", "{}", "null", `{"requestedScopes":["wallet:export"]}`, `{"requestedScopes":[]}`, `{"requestedScopes":["a"],"RequestedScopes":[]}`,
		`{"requestedScopes":"a"}`, `{"requestedScopes":[null]}`, `{"requestedScopes":["a b"]}`, `{"requestedScopes":["a"],"requestedScopes":null}`,
		`{"requeſtedScopes":["a"]}`, `{"x":{"requestedScopes":["a"]}}`, `[{"requestedScopes":["a"]}]`, `{"requestedScopes":["a"]} {}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if newFixture(t, nil).verifies(text) != reason.None {
			return
		}
		var folding struct{ RequestedScopes []string } // folds names and takes the last, as encoding/json does
		if err := json.NewDecoder(strings.NewReader(text)).Decode(&folding); err != nil || !asks(folding.RequestedScopes) {
			t.Errorf("%q: a folding reader sees %q, %v", text, folding.RequestedScopes, err)
		}
		var exact map[string]any // the last of equal names
		if err := json.Unmarshal([]byte(text), &exact); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		first, err := firstScopes(text)
		if last := texts(exact["requestedScopes"]); err != nil || !asks(last) || !slices.Equal(first, last) {
			t.Errorf("%q: the first is %q and the last %q, %v", text, first, last, err)
		}
	})
}

func asks(scopes []string) bool { return len(scopes) > 0 && !slices.Contains(scopes, "") }

func texts(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, item := range list {
		s, _ := item.(string)
		out = append(out, s)
	}
	return out
}

// firstScopes reads as one who stops at the first member whose name is equal but for case.
func firstScopes(text string) ([]string, error) {
	d := json.NewDecoder(strings.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		if s, ok := name.(string); ok && strings.EqualFold(s, "requestedScopes") {
			return texts(v), nil
		}
	}
	return nil, io.EOF
}
