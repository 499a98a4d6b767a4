package canon_test

import (
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/canon"
)

func TestParseTargetKeepsWhatItAccepts(t *testing.T) {
	for _, row := range []struct {
		name, in string
		want     canon.Target
	}{
		{"the root", "/", canon.Target{Path: "/"}},
		{"a plain path", "/api/v0/sdk/e/waas/w/privateKey/export", canon.Target{Path: "/api/v0/sdk/e/waas/w/privateKey/export"}},
		{"a trailing slash", "/a/", canon.Target{Path: "/a/"}},
		{"a file with dots", "/sdk/e/.well-known/jwks.json", canon.Target{Path: "/sdk/e/.well-known/jwks.json"}},
		{"three dots are a name", "/a/.../b", canon.Target{Path: "/a/.../b"}},
		{"sub-delimiters", "/a!$&'()*+,=:@b", canon.Target{Path: "/a!$&'()*+,=:@b"}},
		{"an encoded space", "/a%20b", canon.Target{Path: "/a%20b"}},
		{"an encoded bar", "/a%7Cb", canon.Target{Path: "/a%7Cb"}},
		{"encoded UTF-8, either case of digits", "/caf%C3%a9", canon.Target{Path: "/caf%C3%a9"}},
		{"no query", "/a", canon.Target{Path: "/a"}},
		{"an empty query", "/a?", canon.Target{Path: "/a", HasQuery: true}},
		{"a query", "/a?b=1&c=%2F", canon.Target{Path: "/a", RawQuery: "b=1&c=%2F", HasQuery: true}},
		{"a query with slashes and question marks", "/a?u=/b?c", canon.Target{Path: "/a", RawQuery: "u=/b?c", HasQuery: true}},
		{"an encoded semicolon in a query", "/a?b=1%3B2", canon.Target{Path: "/a", RawQuery: "b=1%3B2", HasQuery: true}},
		{"the longest target", "/" + strings.Repeat("a", canon.MaxTarget-1),
			canon.Target{Path: "/" + strings.Repeat("a", canon.MaxTarget-1)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := canon.ParseTarget(row.in)
			if err != nil || got != row.want {
				t.Fatalf("ParseTarget(%q) = %+v, %v; want %+v", row.in, got, err, row.want)
			}
			if got.String() != row.in {
				t.Errorf("String() = %q, want the input %q", got.String(), row.in)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, row := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", canon.ErrForm},
		{"asterisk form", "*", canon.ErrForm},
		{"absolute form to choose the host", "http://evil.example/a", canon.ErrForm},
		{"authority form", "evil.example:443", canon.ErrForm},
		{"a path without a slash", "a/b", canon.ErrForm},
		{"a query alone", "?a=1", canon.ErrForm},
		{"one byte too many", "/" + strings.Repeat("a", canon.MaxTarget), canon.ErrLong},
		{"scheme-relative", "//evil.example/a", canon.ErrEmpty},
		{"a doubled slash", "/a//b", canon.ErrEmpty},
		{"a doubled trailing slash", "/a//", canon.ErrEmpty},
		{"climbing", "/a/../admin", canon.ErrDot},
		{"climbing at the end", "/a/..", canon.ErrDot},
		{"staying", "/a/./b", canon.ErrDot},
		{"staying at the end", "/a/.", canon.ErrDot},
		{"climbing, encoded", "/a/%2e%2E/admin", canon.ErrEncoded},
		{"climbing, half encoded", "/a/.%2e/admin", canon.ErrEncoded},
		{"climbing, doubly encoded", "/a/%252e%252e/admin", canon.ErrEncoded},
		{"climbing past a matrix parameter", "/a/..;x=1/admin", canon.ErrPathByte},
		{"a matrix parameter", "/admin;x=1", canon.ErrPathByte},
		{"an encoded matrix parameter", "/admin%3Bx=1", canon.ErrEncoded},
		{"an encoded slash", "/a%2Fb", canon.ErrEncoded},
		{"an encoded slash in small letters", "/a%2fb", canon.ErrEncoded},
		{"an encoded backslash", "/a%5Cb", canon.ErrEncoded},
		{"a doubly encoded slash", "/a%252Fb", canon.ErrEncoded},
		{"an encoded letter", "/%61dmin", canon.ErrEncoded},
		{"an encoded tilde", "/%7Eroot", canon.ErrEncoded},
		{"an encoded NUL", "/admin%00.json", canon.ErrEncoded},
		{"an encoded line break", "/a%0d%0aHost:%20evil", canon.ErrEncoded},
		{"an encoded DEL", "/a%7F", canon.ErrEncoded},
		{"an encoded question mark", "/a%3Fb", canon.ErrEncoded},
		{"an encoded fragment", "/a%23b", canon.ErrEncoded},
		{"an overlong slash", "/a%C0%AFb", canon.ErrUnicode},
		{"an overlong dot pair", "/a/%C0%AE%C0%AE/admin", canon.ErrUnicode},
		{"half a rune", "/a%C3", canon.ErrUnicode},
		{"the Kelvin sign for a k", "/private%E2%84%AAey/export", canon.ErrUnicode},
		{"the long s for an s", "/%C5%BFign", canon.ErrUnicode},
		{"a dotless i for an i", "/s%C4%B1gn", canon.ErrUnicode},
		{"a fullwidth slash", "/a%EF%BC%8Fb", canon.ErrUnicode},
		{"an encoded C1 control", "/a%C2%85b", canon.ErrUnicode},
		{"a percent sign alone", "/a%", canon.ErrEscape},
		{"half an escape", "/a%4", canon.ErrEscape},
		{"an escape that is not hexadecimal", "/a%zz", canon.ErrEscape},
		{"an IIS unicode escape", "/a%u002e", canon.ErrEscape},
		{"a backslash", "/a\\b", canon.ErrPathByte},
		{"a fragment", "/a#b", canon.ErrPathByte},
		{"a space", "/a b", canon.ErrPathByte},
		{"a tab", "/a\tb", canon.ErrPathByte},
		{"a raw NUL", "/a\x00b", canon.ErrPathByte},
		{"a raw line break", "/a\r\nb", canon.ErrPathByte},
		{"raw UTF-8", "/caf\u00e9", canon.ErrPathByte},
		{"a raw high byte", "/a\xff", canon.ErrPathByte},
		{"a bar", "/a|b", canon.ErrPathByte},
		{"a quote", `/a"b`, canon.ErrPathByte},
		{"brackets", "/a[0]", canon.ErrPathByte},
		{"braces", "/a{b}", canon.ErrPathByte},
		{"a caret", "/a^b", canon.ErrPathByte},
		{"a backtick", "/a`b", canon.ErrPathByte},
		{"angle brackets", "/a<b>", canon.ErrPathByte},
		{"a semicolon in the query", "/a?b=1;c=2", canon.ErrQuery},
		{"a fragment in the query", "/a?b#c", canon.ErrQuery},
		{"a space in the query", "/a?b c", canon.ErrQuery},
		{"a backslash in the query", `/a?b=\`, canon.ErrQuery},
		{"raw UTF-8 in the query", "/a?b=\u00e9", canon.ErrQuery},
		{"a quote in the query", `/a?b="`, canon.ErrQuery},
		{"a bad escape in the query", "/a?b=%zz", canon.ErrEscape},
		{"half an escape in the query", "/a?b=%4", canon.ErrEscape},
		{"an encoded NUL in the query", "/a?b=%00", canon.ErrQuery},
		{"an encoded line break in the query", "/a?b=%0D%0A", canon.ErrQuery},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := canon.ParseTarget(row.in)
			if err != row.want { //nolint:errorlint // the error is a constant and is compared as one
				t.Errorf("ParseTarget(%.60q) = %+v, %v; want %v", row.in, got, err, row.want)
			}
			if got != (canon.Target{}) {
				t.Errorf("a refused target came back as %+v, want nothing", got)
			}
		})
	}
}

func TestRefusalsDoNotEcho(t *testing.T) {
	const secret = "hunter2"
	for _, in := range []string{"/" + secret + "//", "/" + secret + "%zz", secret, "/?" + secret + ";"} {
		if _, err := canon.ParseTarget(in); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("ParseTarget(%q): error %v, want one without the input", in, err)
		}
	}
	if _, err := canon.Host(secret + "@"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("Host: error %v, want one without the input", err)
	}
	if err := canon.Method(secret); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("Method: error %v, want one without the input", err)
	}
}

func TestHost(t *testing.T) {
	for _, row := range []struct{ name, in, want string }{
		{"a name", "wallet.example", "wallet.example"},
		{"capitals", "Wallet.Example:8080", "wallet.example:8080"},
		{"a single label", "localhost", "localhost"},
		{"an underscore, as in compose files", "my_backend:80", "my_backend:80"},
		{"an IPv4 address", "127.0.0.1:1", "127.0.0.1:1"},
		{"an IPv6 address", "[::1]", "[::1]"},
		{"an IPv6 address with a port", "[2001:DB8::1]:65535", "[2001:db8::1]:65535"},
		{"nothing", "", ""},
		{"a port alone", ":80", ""},
		{"a colon alone", ":", ""},
		{"an empty port", "a:", ""},
		{"an empty port after brackets", "[::1]:", ""},
		{"port zero", "a:0", ""},
		{"a port with leading zeros", "a:080", ""},
		{"a port beyond the last", "a:65536", ""},
		{"a port that overflows", "a:99999999999999999999", ""},
		{"a signed port", "a:+80", ""},
		{"two ports", "a:80:80", ""},
		{"an IPv6 address without brackets", "::1", ""},
		{"an IPv4 address in brackets", "[127.0.0.1]", ""},
		{"empty brackets", "[]", ""},
		{"an open bracket", "[::1", ""},
		{"a closing bracket", "a]", ""},
		{"text after brackets", "[::1]evil", ""},
		{"a zone", "[fe80::1%eth0]", ""},
		{"userinfo", "user@wallet.example", ""},
		{"userinfo that looks like a port", "wallet.example:80@evil.example", ""},
		{"a trailing dot", "wallet.example.", ""},
		{"a leading dot", ".wallet.example", ""},
		{"a doubled dot", "wallet..example", ""},
		{"a path", "wallet.example/evil", ""},
		{"two hosts", "a,b", ""},
		{"a space", "a b", ""},
		{"a line break", "a\r\nb", ""},
		{"an escape", "a%2eb", ""},
		{"a high byte", "wall\u00e9t", ""},
		{"a label too long", strings.Repeat("a", 64), ""},
		{"too long", strings.Repeat("a.", 127) + "aa", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := canon.Host(row.in)
			if got != row.want || (err == nil) != (row.want != "") {
				t.Errorf("Host(%q) = %q, %v; want %q", row.in, got, err, row.want)
			}
		})
	}
}

func TestMethod(t *testing.T) {
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if err := canon.Method(m); err != nil {
			t.Errorf("Method(%q) = %v, want none", m, err)
		}
	}
	for _, m := range []string{
		"", "get", "Get", "CONNECT", "TRACE", "PROPFIND", "GET ", "GET\x00", "PRI", "POST,GET", strings.Repeat("A", 17),
	} {
		if err := canon.Method(m); err != canon.ErrMethod { //nolint:errorlint // a constant
			t.Errorf("Method(%q) = %v, want %v", m, err, canon.ErrMethod)
		}
	}
}

func TestFold(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"/", "/"}, {"/a", "/a"}, {"/a/", "/a"}, {"/A/b/", "/a/b"}, {"/caf%C3%A9", "/caf%c3%a9"},
	} {
		if got := canon.Fold(row.in); got != row.want {
			t.Errorf("Fold(%q) = %q, want %q", row.in, got, row.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"", ""}, {"abc", "abc"}, {"a%20b", "a b"}, {"%C3%A9", "\u00e9"}, {"%c3%a9", "\u00e9"}, {"a%7C", "a|"},
	} {
		if got := canon.Unescape(row.in); got != row.want {
			t.Errorf("Unescape(%q) = %q, want %q", row.in, got, row.want)
		}
	}
}

// hot are the targets of the benchmark and of the allocation budget.
var hot = []string{
	"/api/v0/sdk/3f0c6d2e-8a41-4c0e-9a53-6c1f0f1b2f10/waas/7b9c/privateKey/export",
	"/api/v0/sdk/3f0c6d2e-8a41-4c0e-9a53-6c1f0f1b2f10/users?limit=10&q=a%20b",
}

func TestTheHotPathAllocatesNothing(t *testing.T) {
	folded := canon.Fold(hot[0])
	if n := testing.AllocsPerRun(100, func() {
		for _, target := range hot {
			if _, err := canon.ParseTarget(target); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = canon.ParseTarget("/a/../b")
		_, _ = canon.Host("wallet.example:8443")
		_, _ = canon.Host("[::1]:8443")
		_ = canon.Method("POST")
		_ = canon.Fold(folded)
		_ = canon.Unescape("3f0c6d2e")
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkParseTarget(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := canon.ParseTarget(hot[0]); err != nil {
			b.Fatal(err)
		}
	}
}
