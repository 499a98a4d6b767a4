// Package framing holds the rules for a request's header fields: which make a request ambiguous and refuse it, and which
// never reach the backend.
//
// They run before a request is judged, so that a policy sees the fields that the backend will see and no others. The rules
// hold in every mode; nothing that a policy says relaxes them.
package framing

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/stepward/stepward/internal/canon"
)

// Config names the fields that need care beyond those that always do. Names are case-insensitive.
type Config struct {
	// Tokens are fields that carry a token, such as x-dyn-elevated-access-token. Each may occur once, and none of them may be
	// the name of a query parameter (RFC 6750 section 5.3: URLs are logged).
	Tokens []string
	// Sensitive are further fields that a decision depends on, such as the API version. Each may occur once.
	Sensitive []string
	// Identity are the fields in which the backend is told verified facts. Client copies are always removed.
	Identity []string
	// AllowUnderscore are names with an underscore that pass. All others are removed, since many backends read "_" as "-".
	AllowUnderscore []string
}

// Rules are compiled once and are safe for concurrent use.
type Rules struct {
	singles    map[string]bool // names that may occur once
	guarded    map[string]bool // names that no twin may imitate and that Trailer may not name
	query      []string        // names that may not be query parameters
	underscore map[string]bool // names with an underscore that may stay
	stripped   map[string]strip
}

// strip says when a field is removed.
type strip uint8

const (
	always    strip = iota + 1 // it would make the backend do something else than what was judged
	untrusted                  // it describes the client, and only a trusted proxy may do that
)

// A decision depends on these in every configuration.
var _sensitive = []string{
	"Authorization", "Cookie", "Origin", "Access-Control-Request-Method", "Content-Type", "Content-Length", "Host", "Early-Data",
	"Sec-Websocket-Key", "Sec-Websocket-Version", "Upgrade", "Expect",
}

// These say how a message is framed. They may be repeated, but nothing may pass for them.
var _framing = []string{"Connection", "Transfer-Encoding", "Te", "Trailer"}

// Some frameworks let these replace the method or the path, or (httpoxy) the address of an outgoing proxy. A trusted proxy
// passes its clients' on, so that trust changes nothing.
var _overrides = []string{
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Path",
	"X-Original-Url", "X-Original-Uri", "X-Original-Method", "X-Original-Host", "X-Original-Path", "X-Rewrite-Url", "X-Rewrite-Uri",
	"Proxy",
}

// Other proxies tell these about a client. Without a trusted proxy nobody but the client can have written them.
var _clientClaims = []string{
	"Forwarded", "X-Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Client-Ip", "Cf-Connecting-Ip",
	"Fastly-Client-Ip", "Fly-Client-Ip", "X-Appengine-User-Ip", "X-Envoy-External-Address",
}

// These end at us (RFC 9110 section 7.6.1), so that a policy does not see them either.
var _hopByHop = []string{"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Http2-Settings"}

// Whole families of names, in net/http's form.
const (
	_ours      = "Stepward-" // always removed: what a backend reads under this name, only we may have said
	_forwarded = "X-Forwarded-"
)

// Connection may name these (RFC 9110 section 7.6.1). Naming any other field would remove it on the way to the backend after
// it was judged.
var _connectionOptions = []string{"close", "keep-alive", "upgrade", "te", "trailer", "http2-settings"}

// New compiles the rules. It refuses an underscore exception that is another spelling of a field with a meaning.
func New(c Config) (*Rules, error) {
	r := &Rules{
		singles: map[string]bool{}, guarded: map[string]bool{}, query: []string{"access_token", "_method", "x-http-method-override"},
		underscore: map[string]bool{}, stripped: map[string]strip{},
	}
	for _, names := range [][]string{_sensitive, c.Tokens, c.Sensitive} {
		for _, name := range names {
			r.single(name)
		}
	}
	for _, name := range _framing {
		r.guarded[name] = true
	}
	for _, name := range c.Tokens {
		if name != "" {
			r.query = append(r.query, name)
		}
	}
	r.strip(untrusted, _clientClaims)
	r.strip(always, _overrides)
	r.strip(always, _hopByHop)
	r.strip(always, c.Identity)
	for name := range r.guarded {
		if r.fate(name) != 0 {
			return nil, fmt.Errorf("framing: the header %s cannot be both read from clients and removed from their requests", name)
		}
	}
	for _, name := range c.AllowUnderscore {
		if strings.IndexByte(name, '_') < 0 || !isPlain(strings.ReplaceAll(name, "_", "-")) {
			return nil, fmt.Errorf("framing: %q is not a header name with an underscore", name)
		}
		if meant := fold(name); r.guarded[meant] || r.fate(meant) != 0 {
			return nil, fmt.Errorf("framing: the header name %q may not be allowed: it can be read as %s", name, meant)
		}
		r.underscore[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return r, nil
}

func (r *Rules) single(name string) {
	if name == "" {
		return
	}
	name = fold(name)
	r.guarded[name], r.singles[name] = true, true
}

func (r *Rules) strip(when strip, names []string) {
	for _, name := range names {
		if name != "" {
			r.stripped[fold(name)] = when
		}
	}
}

// Withheld are the names that Strip removes, beside the families Stepward-* and, of a peer that is not trusted, X-Forwarded-*: for doors
// where a proxy may know of fields that it does not tell of.
func (r *Rules) Withheld(trusted bool) []string {
	var names []string
	for name := range r.stripped {
		if !r.keeps(name, trusted) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Error says which rule a request breaks. Its text is static: nothing of the request is in it.
type Error string

func (e Error) Error() string { return "framing: " + string(e) }

// The refusals.
const (
	ErrRepeated   Error = "a header that a decision depends on occurs more than once"
	ErrTwin       Error = "a header can be read as another one that a decision depends on"
	ErrConnection Error = "connection names something other than a connection option"
	ErrTrailer    Error = "trailer names a header that a decision depends on"
	ErrQuery      Error = "a token is in the query"
)

// Check refuses a request whose header can be read in two ways. Trailer holds the announced trailer fields and may be nil.
// Names must be in net/http's form, as its server gives them. For a request that it accepts it allocates only where names
// hold something else than letters, digits and dashes.
func (r *Rules) Check(header, trailer http.Header) error {
	for name, values := range header {
		if len(values) > 1 && r.singles[name] {
			return ErrRepeated
		}
		if !isPlain(name) && r.guarded[fold(name)] {
			return ErrTwin
		}
	}
	for _, value := range header["Connection"] {
		for option := range strings.SplitSeq(value, ",") {
			if !isConnectionOption(textproto.TrimString(option)) {
				return ErrConnection
			}
		}
	}
	for name := range trailer {
		if meant := fold(name); r.guarded[meant] || r.fate(meant) != 0 {
			return ErrTrailer
		}
	}
	return nil
}

// CheckTwins refuses a field that can be read as one which Strip removes: Stepward_Subject, Stepward.Subject. It is for doors whose
// asker forwards the client's header by itself, and can replace or remove fields by their exact names alone.
func (r *Rules) CheckTwins(header http.Header) error {
	for name := range header {
		if !isPlain(name) && r.fate(fold(name)) != 0 {
			return ErrTwin
		}
	}
	return nil
}

func isConnectionOption(option string) bool {
	for _, known := range _connectionOptions {
		if strings.EqualFold(option, known) {
			return true
		}
	}
	return option == "" // an empty list element is nothing: RFC 9110 section 5.6.1.2
}

// CheckQuery refuses a token in the query of a target that package canon accepted, under any spelling of its name.
func (r *Rules) CheckQuery(rawQuery string) error {
	for rawQuery != "" {
		var parameter string
		parameter, rawQuery, _ = strings.Cut(rawQuery, "&")
		name, _, _ := strings.Cut(parameter, "=")
		name, _, _ = strings.Cut(canon.Unescape(name), "[") // "access_token[]" is the same name to PHP and Rails
		name = strings.TrimLeft(name, "+ ")                 // PHP drops leading blanks
		for _, token := range r.query {
			if sameName(name, token) {
				return ErrQuery
			}
		}
	}
	return nil
}

// Strip removes from header, in place, what must not reach the backend: names with an underscore, client copies of
// identity fields and of Stepward's own, overrides of method and path, hop-by-hop fields other than those that the proxy
// itself handles (Connection, Upgrade, TE, Trailer), and, unless the peer is a trusted proxy, claims about the client.
// Twins of all these and of the fields that a decision depends on go too, so that it is safe without Check.
func (r *Rules) Strip(header http.Header, trusted bool) {
	for name := range header {
		if !r.keeps(name, trusted) {
			delete(header, name)
		}
	}
}

func (r *Rules) keeps(name string, trusted bool) bool {
	if isExact(name) {
		fate := r.fate(name)
		return fate == 0 || fate == untrusted && trusted
	}
	if strings.IndexByte(name, '_') >= 0 && !r.underscore[name] {
		return false
	}
	meant := fold(name)
	return r.fate(meant) == 0 && !r.guarded[meant]
}

// fate looks a folded name up.
func (r *Rules) fate(name string) strip {
	if s := r.stripped[name]; s != 0 {
		return s
	}
	switch {
	case strings.HasPrefix(name, _ours):
		return always
	case strings.HasPrefix(name, _forwarded):
		return untrusted
	}
	return 0
}

// fold returns the name that a backend may take name for: CGI, WSGI, Rack and PHP make one character of all those that are
// no letters and digits, or of some. The result is in net/http's form; a plain name in that form is returned as it is.
func fold(name string) string {
	if isExact(name) {
		return name
	}
	if !isPlain(name) {
		name = strings.Map(func(c rune) rune {
			if c < 0x80 && isAlphanumeric(byte(c)) {
				return c
			}
			return '-'
		}, name)
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// isExact reports whether fold would return name itself.
func isExact(name string) bool {
	begin := true // of a word
	for i := range len(name) {
		c := name[i]
		if !plain[c] || begin && 'a' <= c && c <= 'z' || !begin && 'A' <= c && c <= 'Z' {
			return false
		}
		begin = c == '-'
	}
	return true
}

// sameName reports whether the two fold alike, without allocating.
func sameName(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case !isAlphanumeric(c):
		return '-'
	}
	return c
}

// plain are the bytes of names that every backend reads alike.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c == '-' || isAlphanumeric(byte(c))
	}
	return t
}()

func isPlain(name string) bool {
	for i := range len(name) {
		if !plain[name[i]] {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
