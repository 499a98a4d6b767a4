package canon_test

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stepward/stepward/internal/canon"
)

// FuzzParseTarget holds every accepted target against decoders that are laxer than ours: each must see the same segments.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"/", "/a?", "/a/b/?c=d&e=%20", "/a%2Fb", "/a/..%2fb", "/a;x/b", "/a%C3%A9", "/a%252e", "//a", "/a|b", "/%C0%AF",
		"/a%3fb", "/a?x;y", "http://a/b", "*", "/...", "/a:b", "/a%e2%84%aa",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := canon.ParseTarget(in)
		if err != nil {
			return
		}
		if got.String() != in {
			t.Fatalf("accepted %q but would send %q", in, got.String())
		}
		if again, err := canon.ParseTarget(got.String()); err != nil || again != got {
			t.Fatalf("not idempotent: %q became %+v, %v", in, again, err)
		}
		shape := segments(got.Path)
		for name, reading := range readings(t, in, got) {
			if segments(reading) != shape {
				t.Errorf("%s reads %q as %q: %d segments instead of %d", name, in, reading, segments(reading), shape)
			}
		}
	})
}

// readings is the path as decoders downstream would have it.
func readings(t *testing.T, in string, got canon.Target) map[string]string {
	t.Helper()
	u, err := url.ParseRequestURI(in)
	if err != nil {
		t.Fatalf("net/url refuses %q: %v", in, err)
	}
	if u.Host != "" || u.EscapedPath() == "" || u.RawQuery != got.RawQuery || (u.ForceQuery || u.RawQuery != "") != got.HasQuery {
		t.Fatalf("net/url reads %q as %#v", in, u)
	}
	once := u.Path
	if once != canon.Unescape(got.Path) {
		t.Fatalf("net/url decodes %q to %q, we to %q", in, once, canon.Unescape(got.Path))
	}
	if !utf8.ValidString(once) { // an overlong "/" is among what is not valid
		t.Fatalf("%q decodes to bytes that are not UTF-8", in)
	}
	twice := canon.Unescape(once)
	if twice != once {
		t.Fatalf("a second decoding changes %q to %q", once, twice)
	}
	if q, err := url.ParseQuery(got.RawQuery); err != nil {
		t.Fatalf("net/url refuses the query of %q: %v (%v)", in, err, q)
	}
	noParams, _, cut := strings.Cut(once, ";")
	if cut {
		t.Fatalf("a server that strips parameters reads %q as %q", in, noParams)
	}
	keepSlash := func(s string) string {
		if c := path.Clean(s); c == "/" || !strings.HasSuffix(s, "/") {
			return c
		} else {
			return c + "/"
		}
	}
	if c := keepSlash(once); c != once {
		t.Fatalf("path.Clean changes %q to %q", once, c)
	}
	return map[string]string{
		"a decoder":                once,
		"a backslash converter":    strings.ReplaceAll(once, `\`, "/"),
		"a fragment cutter":        before(once, "#"),
		"a query cutter":           before(once, "?"),
		"a C string":               before(once, "\x00"),
		"a server ignoring case":   strings.ToUpper(once),
		"a server lower-casing":    strings.ToLower(once),
		"a case-blind %2F decoder": strings.NewReplacer("%2F", "/", "%2f", "/", "%5C", "/", "%5c", "/").Replace(got.Path),
		"a best-fit slash decoder": strings.NewReplacer("\uff0f", "/", "\uff3c", "/", "\uff0e", ".").Replace(once),
	}
}

func before(s, sep string) string { s, _, _ = strings.Cut(s, sep); return s }

func segments(p string) int { return strings.Count(p, "/") }

// FuzzUnicodeCaseFolds: an accepted path never equals an ASCII one to a server that compares Unicode letters ignoring case.
func FuzzUnicodeCaseFolds(f *testing.F) {
	f.Add("/private%E2%84%AAey/export", "/privatekey/export")
	f.Add("/%C5%BFign", "/sign")
	f.Fuzz(func(t *testing.T, in, literal string) {
		got, err := canon.ParseTarget(in)
		want, err2 := canon.ParseTarget(literal)
		if err != nil || err2 != nil || strings.Contains(want.Path, "%") || !strings.Contains(got.Path, "%") {
			return
		}
		decoded := canon.Unescape(got.Path)
		if !isASCII(decoded) && strings.EqualFold(decoded, want.Path) {
			t.Errorf("a server that ignores case reads %q as %q", in, want.Path)
		}
	})
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a", "A:80", "[::1]:80", ":80", "[]", "a:", "u@h", "a.", "[::1", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := canon.Host(in)
		if err != nil {
			return
		}
		if got != strings.ToLower(in) {
			t.Fatalf("Host(%q) = %q, want only a change of case", in, got)
		}
		if again, err := canon.Host(got); err != nil || again != got {
			t.Fatalf("not idempotent: %q became %q, %v", got, again, err)
		}
		u, err := url.Parse("http://" + got + "/x")
		if err != nil || u.Host != got || u.User != nil || u.Path != "/x" {
			t.Fatalf("net/url reads the host %q as %#v, %v", got, u, err)
		}
	})
}

func FuzzFold(f *testing.F) {
	f.Add("/A/b/")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := canon.ParseTarget(in)
		if err != nil {
			return
		}
		folded := canon.Fold(got.Path)
		if canon.Fold(folded) != folded {
			t.Fatalf("Fold is not idempotent on %q", got.Path)
		}
		if canon.Fold(strings.ToUpper(got.Path)) != canon.Fold(strings.ToLower(got.Path)) {
			t.Fatalf("Fold tells cases of %q apart", got.Path)
		}
	})
}
