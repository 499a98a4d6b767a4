// Package canon parses a request's target, host and method once and strictly, or refuses.
//
// The promise is that what was judged is byte for byte what is sent, and that no decoder downstream, however lenient, reads
// it as something else: no dot segments, empty segments, encoded delimiters, matrix parameters or characters that RFC 3986
// does not allow (section 3.3 for paths, 3.4 for queries). A target is never repaired.
package canon

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTarget is the longest accepted request target, in bytes.
const MaxTarget = 8 << 10

// Target is a request target in origin form (RFC 9112 section 3.2.1). Its parts are substrings of what was parsed.
type Target struct {
	Path     string // begins with "/", percent-encoding kept
	RawQuery string // without "?"
	HasQuery bool   // a "?" was there, even with nothing behind it
}

// String returns the target as it was parsed.
func (t Target) String() string {
	if !t.HasQuery {
		return t.Path
	}
	return t.Path + "?" + t.RawQuery
}

// Error says which rule a target, host or method breaks. Its text is static: nothing of the input is in it.
type Error string

func (e Error) Error() string { return "canon: " + string(e) }

// The refusals.
const (
	ErrForm     Error = "target is not in origin form: it must begin with a slash"
	ErrLong     Error = "target is longer than 8 KiB"
	ErrEmpty    Error = "path has an empty segment"
	ErrDot      Error = "path has a dot segment"
	ErrPathByte Error = "path has a byte that must be percent-encoded or is read differently by some servers"
	ErrEscape   Error = "a percent-escape is not two hexadecimal digits"
	ErrEncoded  Error = "path encodes a character that needs no encoding or changes meaning when decoded"
	ErrUnicode  Error = "path encodes bytes that are not UTF-8 or a character that some servers fold into ASCII"
	ErrQuery    Error = "query has a byte that must be percent-encoded or is read differently by some servers"
	ErrHost     Error = "host is not a plain name or address with an optional port"
	ErrMethod   Error = "method is not a known word in capitals"
)

// The classes of a byte in a target.
const (
	inPath  = 1 << iota // may stand raw in a path
	inQuery             // may stand raw in a query
	plain               // unreserved (RFC 3986 section 2.3): encoding it makes a second spelling
)

var class = func() (t [256]uint8) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = inPath | inQuery | plain
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-32] = inPath|inQuery|plain, inPath|inQuery|plain
	}
	for _, c := range []byte("-._~") {
		t[c] = inPath | inQuery | plain
	}
	// Sub-delims, ":" and "@", but not ";": some servers cut matrix parameters off a segment and parameters off a query.
	for _, c := range []byte("!$&'()*+,=:@") {
		t[c] = inPath | inQuery
	}
	t['/'] |= inPath | inQuery
	t['?'] |= inQuery
	return t
}()

// ParseTarget parses the raw request target, which is http.Request.RequestURI and not its URL. It allocates nothing but for
// paths that encode non-ASCII. Escapes keep the case of their digits: "%c3" and "%C3" are two spellings of one path, of
// which a route table must take one or call the other ambiguous.
func ParseTarget(requestURI string) (Target, error) {
	if len(requestURI) > MaxTarget {
		return Target{}, ErrLong
	}
	if requestURI == "" || requestURI[0] != '/' {
		return Target{}, ErrForm
	}
	path, query, has := strings.Cut(requestURI, "?")
	if err := checkPath(path); err != nil {
		return Target{}, err
	}
	if err := checkQuery(query); err != nil {
		return Target{}, err
	}
	return Target{Path: path, RawQuery: query, HasQuery: has}, nil
}

func checkPath(path string) error {
	begin := 1       // of the segment
	foreign := false // some escape is not ASCII
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			switch path[begin:i] {
			case ".", "..":
				return ErrDot
			case "":
				if i < len(path) { // a single trailing slash is fine
					return ErrEmpty
				}
			}
			begin = i + 1
			continue
		}
		if path[i] == '%' {
			c, err := escape(path, i)
			if err != nil {
				return err
			}
			if c < 0x20 || c == 0x7f || class[c]&plain != 0 || strings.IndexByte(`/\%;?#`, c) >= 0 {
				return ErrEncoded
			}
			foreign = foreign || c >= utf8.RuneSelf
			i += 2
			continue
		}
		if class[path[i]]&inPath == 0 {
			return ErrPathByte
		}
	}
	if foreign {
		return checkUnicode(Unescape(path))
	}
	return nil
}

// checkUnicode refuses what old decoders read as ASCII: overlong UTF-8 (%C0%AF was a slash to IIS), the letters whose other
// case is ASCII (the Kelvin sign is a k to a backend that ignores case), and the fullwidth forms, which Windows code pages
// and NFKC fold into ASCII. Other compatibility characters are not looked up: no route of ours can be spelled with them.
func checkUnicode(decoded string) error {
	for i, r := range decoded {
		if r < utf8.RuneSelf {
			continue
		}
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(decoded[i:]); size == 1 {
				return ErrUnicode
			}
		}
		if unicode.IsControl(r) || r >= 0xff01 && r <= 0xff5e || foldsToASCII(r) {
			return ErrUnicode
		}
	}
	return nil
}

func foldsToASCII(r rune) bool {
	if unicode.ToLower(r) < utf8.RuneSelf || unicode.ToUpper(r) < utf8.RuneSelf {
		return true
	}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		if f < utf8.RuneSelf {
			return true
		}
	}
	return false
}

func checkQuery(query string) error {
	for i := 0; i < len(query); i++ {
		if query[i] == '%' {
			c, err := escape(query, i)
			if err != nil {
				return err
			}
			if c < 0x20 || c == 0x7f {
				return ErrQuery
			}
			i += 2
			continue
		}
		if class[query[i]]&inQuery == 0 {
			return ErrQuery
		}
	}
	return nil
}

// escape decodes the percent-escape at s[i].
func escape(s string, i int) (byte, error) {
	if i+2 >= len(s) {
		return 0, ErrEscape
	}
	hi, lo := unhex(s[i+1]), unhex(s[i+2])
	if hi > 15 || lo > 15 {
		return 0, ErrEscape
	}
	return hi<<4 | lo, nil
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// Unescape decodes one segment of an accepted path, once. Without escapes it returns s itself.
func Unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if d, err := escape(s, i); err == nil {
				c, i = d, i+2
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Fold returns the path as a backend reads it that ignores case and one trailing slash. A folded path is returned as it is.
func Fold(path string) string {
	if len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	for i := 0; i < len(path); i++ {
		if 'A' <= path[i] && path[i] <= 'Z' {
			return strings.ToLower(path) // ASCII only: an accepted path holds nothing else
		}
	}
	return path
}

// Host checks a Host header or :authority: a registered name, IPv4 address or bracketed IPv6 address, with an optional
// port. It returns it in lower case, and allocates only if that changes it. Userinfo, empty labels (so also a trailing
// dot), zones, and ports that are empty, zero or written with leading zeros are refused.
func Host(host string) (string, error) {
	if len(host) > 255 {
		return "", ErrHost
	}
	name, port, hasPort := splitPort(host)
	if hasPort && !isPort(port) {
		return "", ErrHost
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || !isIPv6(inner) {
			return "", ErrHost
		}
	} else if !isName(name) {
		return "", ErrHost
	}
	return strings.ToLower(host), nil
}

// splitPort cuts at the last colon, unless that is within brackets.
func splitPort(host string) (name, port string, hasPort bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

func isPort(s string) bool {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n > 0 && n <= 65535 && s[0] != '0'
}

// isIPv6 wants no zone: it names an interface of the client's machine.
func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6() && addr.Zone() == ""
}

func isName(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 { // also refuses a leading, trailing or doubled dot
			return false
		}
		for _, c := range []byte(label) {
			if class[c]&plain == 0 || c == '.' || c == '~' {
				return false
			}
		}
	}
	return true
}

// Method checks that a method is one that a wallet API can mean: RFC 9110 and PATCH, in capitals. CONNECT and TRACE are
// refused, and so is every extension method, since policies name methods one by one.
func Method(method string) error {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return nil
	}
	return ErrMethod
}
