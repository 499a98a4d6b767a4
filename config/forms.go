package config

import (
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// The functions here read one value each. What they return as fault never holds the value: it may be a secret from the
// environment. The caller quotes the file instead.

// example is what a remedy offers where a form has nothing better to say.
func example(t reflect.Type, tag reflect.StructTag) string {
	if words := tag.Get("enum"); words != "" {
		return "one of " + strings.ReplaceAll(words, ",", ", ")
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration with its unit, such as 10s, 5m or 1h30m"
	case reflect.TypeFor[Size]():
		return "a size such as 32KiB or 10MiB, or a number of bytes"
	case reflect.TypeFor[int]():
		return "a whole number, such as 1000"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[netip.Prefix]():
		return "a network such as 10.0.0.0/8"
	case reflect.TypeFor[Ledger]():
		return "bolt:///var/lib/stepward/ledger.db, bolt:ledger.db for a file beside this one, memory:, or a server such as redis://host:6379/0 or postgres://user@host/database"
	}
	if text, ok := examples[strings.TrimSuffix(tag.Get("form"), "?")]; ok {
		return text
	}
	return "text"
}

// examples are by form.
var examples = map[string]string{
	"address":     "host:port, such as 127.0.0.1:8080",
	"socket":      "host:port, such as 127.0.0.1:9191, or a socket, such as unix:///run/stepward.sock",
	"origin":      "scheme, host and port alone, such as http://127.0.0.1:9000",
	"jwks":        "the https URL of the JWK Set (http only on loopback), or use jwks_file",
	"settings":    "a path at upstream such as /api/v0/sdk/{environmentId}/settings, or an https URL (http only on loopback) with such a path",
	"environment": "an environment's id: letters, digits, dots, dashes and underscores",
	"endpoint":    "an https URL (http only on loopback), such as https://backend.internal/mfa/introspect",
	"page":        "an https URL, such as https://app.example/verify",
	"file":        "a path, which begins at this file's directory unless it is absolute",
	"host":        "a host name, such as backend.internal",
	"header":      "a header name of letters, digits and hyphens, such as X-Example",
	"underscored": "a header name of letters, digits, hyphens and underscores, such as x_request_tag",
	"cookie":      "a cookie name, such as DYNAMIC_JWT_TOKEN",
	"scope":       "one word of printable ASCII without quotes or backslash, such as wallet:export",
	"quoted":      "printable ASCII without quotes or backslash",
	"uri":         "the beginning of a URI, such as https://docs.example/problems/",
	"cors":        "an origin such as https://app.example, without a path, or \"*\" alone",
	"check":       "a path with {environmentId} in it, such as /api/v0/sdk/{environmentId}/session",
	"sink":        "stdout, stderr, off, or a path with a slash, such as ./decisions.jsonl",
}

func parseDuration(text string, tag reflect.StructTag) (time.Duration, string) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, "is not a duration"
	case d < 0:
		return 0, "is negative"
	case d == 0 && tag.Get("zero") == "":
		return 0, "must be more than nothing"
	}
	return d, ""
}

func parseBytes(text string, tag reflect.StructTag) (Size, string) {
	s, err := parseSize(text)
	switch {
	case err != nil:
		return 0, "is not a size"
	case s == 0 && tag.Get("zero") == "":
		return 0, "must be more than nothing"
	}
	return s, ""
}

func parseCount(text string, tag reflect.StructTag) (int, string) {
	n, err := parseInt(text)
	switch {
	case err != nil || int64(int(n)) != n:
		return 0, "is not a whole number"
	case n < 0:
		return 0, "is negative"
	case n == 0 && tag.Get("zero") == "":
		return 0, "must be more than nothing"
	}
	return int(n), ""
}

func parseBool(text string) (bool, string) {
	switch text {
	case "true":
		return true, ""
	case "false":
		return false, ""
	}
	return false, "is neither true nor false"
}

// Widest prefixes that are believed: those of 10.0.0.0/8 and fc00::/7.
const (
	widest4 = 8
	widest6 = 7
)

func parsePrefix(text string) (p netip.Prefix, fault, remedy string) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return p, "is an address, but must be a network", "add /" + strconv.Itoa(addr.BitLen()) + " for that one address"
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, "is not a network", ""
	case p.Addr().Is4In6():
		return p, "is an IPv4 network in IPv6 clothes", "write it as IPv4"
	case p.Addr().Is4() && p.Bits() < widest4, p.Addr().Is6() && p.Bits() < widest6:
		return p, "would believe X-Forwarded-* from half the internet", "name the networks of your own proxies"
	case p != p.Masked():
		return p, "has bits beyond its length", "clear them, as in 10.0.0.0/8"
	}
	return p, "", ""
}

func parseURL(text, form string) (u *url.URL, fault, remedy string) {
	u, err := url.Parse(text)
	if form == "settings" {
		if err != nil || strings.Count(u.Path, "{environmentId}") != 1 || strings.Contains(u.RawPath, "%") {
			return nil, "does not have {environmentId} once in its path", ""
		}
		if isPathAlone(u, text) {
			return u, "", ""
		}
	}
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "" || !goodPort(u):
		return nil, "is not a URL with a scheme and a host", ""
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "is neither http nor https", ""
	case u.User != nil:
		return nil, "holds a user name or password", "remove it; it would be shown in logs"
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return nil, "has a fragment", "remove everything from the #"
	}
	switch form {
	case "origin":
		if u.Path != "" || u.RawQuery != "" || u.ForceQuery {
			return nil, "has a path or query, but requests keep their own", "remove everything after host and port, the slash too"
		}
	case "jwks":
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, "would fetch keys over plain http", "use https; http is for loopback only"
		}
	case "settings":
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, "would fetch settings over plain http", "use https, or a path alone, which is asked of upstream"
		}
	case "endpoint":
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, "would send tokens over plain http", "use https; http is for loopback only"
		}
	case "page":
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, "would send users to plain http", "use https; http is for loopback only"
		}
	}
	return u, "", ""
}

// isPathAlone: "//host/x" names a host, and what a backend could clean away names nothing.
func isPathAlone(u *url.URL, text string) bool {
	return u.Scheme == "" && u.Host == "" && u.User == nil && strings.HasPrefix(text, "/") && !strings.Contains(text, "#") && path.Clean(u.Path) == u.Path
}

func goodPort(u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") {
		return false
	}
	return u.Port() == "" || isPort(u.Port()) && u.Port() != "0"
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == text
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// parseLedger reads bolt:///absolute, bolt:/absolute, bolt:relative, memory: and the addresses of servers.
func (d *decoder) parseLedger(text string) (l Ledger, fault, remedy string) {
	scheme, rest, _ := strings.Cut(text, ":")
	switch scheme {
	case "memory":
		if strings.Trim(rest, "/") != "" {
			return l, "names a place, but memory: has none", "write memory:"
		}
		return Ledger{Kind: LedgerMemory}, "", ""
	case "bolt":
		return d.parseBolt(rest)
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
		return parseServer(LedgerRedis, text, "write redis://user@host:6379/0")
	case "postgres", "postgresql":
		return parseServer(LedgerPostgres, text, "write postgres://user@host:5432/database?sslmode=verify-full")
	}
	return l, "is not a ledger", ""
}

// parseServer looks at what all addresses of servers have in common; the stores know the rest. No fault quotes the text.
func parseServer(kind LedgerKind, text, example string) (l Ledger, fault, remedy string) {
	_, rest, ok := strings.Cut(text, "://")
	authority, _, _ := strings.Cut(rest, "/")
	authority, _, _ = strings.Cut(authority, "?")
	user, hosts := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, hosts = authority[:at], authority[at+1:]
	}
	_, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	switch {
	case !ok || hosts == "" || strings.HasPrefix(hosts, ":"):
		return l, "names no host", example
	case strings.Contains(user, ":") || values.Has("password") || err != nil:
		return l, "has a password, or options that cannot be read", example + " and name the password's file in ledger_options.password_file"
	case strings.ContainsAny(text, "# \t"):
		return l, "has a blank or a fragment", example
	case kind == LedgerRedis && query != "":
		return l, "has options, and for Redis there are none", "options stand in ledger_options"
	}
	return Ledger{Kind: kind, URL: text}, "", ""
}

func (d *decoder) parseBolt(rest string) (l Ledger, fault, remedy string) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return l, "names a host, but a bolt: ledger is a file", "write three slashes for an absolute path, or bolt:ledger.db"
		}
		rest = after
	}
	switch {
	case rest == "" || strings.HasSuffix(rest, "/") || path.Base(rest) == "." || path.Base(rest) == "..":
		return l, "names no file", ""
	case strings.ContainsAny(rest, "?#%"):
		return l, "has options or escapes", "write a plain path; options stand in ledger_options"
	}
	return Ledger{Kind: LedgerBolt, Path: d.resolve(rest)}, "", ""
}

func (d *decoder) parseString(text string, tag reflect.StructTag) (value, fault, remedy string) {
	if strings.TrimSpace(text) != text {
		return "", "begins or ends with a blank", "remove it"
	}
	if words := tag.Get("enum"); words != "" {
		if !slices.Contains(strings.Split(words, ","), text) {
			return "", "is not one of the words", ""
		}
		return text, "", ""
	}
	form, mayBeEmpty := strings.CutSuffix(tag.Get("form"), "?")
	if text == "" {
		if mayBeEmpty || form == "" {
			return "", "", ""
		}
		return "", "is empty", ""
	}
	fault, remedy = checkForm(text, form)
	if fault != "" {
		return "", fault, remedy
	}
	switch {
	case form == "file":
		return d.resolve(text), "", ""
	case form == "sink" && strings.Contains(text, "/"):
		return withSlash(d.resolve(text)), "", ""
	}
	return text, "", ""
}

// withSlash keeps a file named stdout from being taken for the word.
func withSlash(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return "./" + name
}

func checkForm(text, form string) (fault, remedy string) {
	switch form {
	case "address":
		return checkAddress(text)
	case "socket":
		return checkSocket(text)
	case "host":
		return checkHost(text)
	case "header":
		return checkHeader(text)
	case "underscored":
		good := strings.Contains(text, "_") && isPlainName(strings.ReplaceAll(text, "_", "-"))
		return unless(good, "is not a header name with an underscore")
	case "cookie":
		return unless(httpguts.ValidHeaderFieldName(text), "is not a cookie name")
	case "scope":
		return unless(isScopeToken(text), "is not one scope word")
	case "quoted":
		return unless(isQuotable(text), "cannot stand in a quoted string")
	case "environment":
		return unless(isEnvironmentID(text), "cannot stand in a path")
	case "uri":
		u, err := url.Parse(text)
		return unless(err == nil && u.Scheme != "" && isQuotable(text) && !strings.Contains(text, " "), "does not begin a URI")
	case "check":
		return unless(isCheckPath(text), "is not a path of letters, digits and the signs -._~/ with no placeholder but {environmentId}")
	case "cors":
		return unless(text == "*" || isOrigin(text), "is not an origin")
	case "sink":
		known := text == "stdout" || text == "stderr" || text == "off"
		return unless(known || strings.Contains(text, "/") && !strings.HasSuffix(text, "/"), "is no place for a log")
	}
	return "", ""
}

// isCheckPath accepts what reads alike to everybody, and one placeholder in place of whole segments.
func isCheckPath(text string) bool {
	if !strings.HasPrefix(text, "/") {
		return false
	}
	for segment := range strings.SplitSeq(text[1:], "/") {
		if segment == "{environmentId}" {
			continue
		}
		for _, c := range []byte(segment) {
			if c != '-' && c != '.' && c != '_' && c != '~' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				return false
			}
		}
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func unless(good bool, bad string) (fault, remedy string) {
	if good {
		return "", ""
	}
	return bad, ""
}

func checkAddress(text string) (fault, remedy string) {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil:
		return "is not an address", ""
	case !isPort(port):
		return "has no port between 0 and 65535", ""
	case host != "" && !isHost(host):
		return "has no host that could be listened on", ""
	}
	return "", ""
}

func checkSocket(text string) (fault, remedy string) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		return unless(strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/"), "is no absolute path of a socket")
	}
	return checkAddress(text)
}

func checkHost(text string) (fault, remedy string) { return unless(isHost(text), "is not a host name") }

func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	for _, c := range []byte(text) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return text != "" && len(text) < 254 && !strings.HasPrefix(text, ".") && !strings.Contains(text, "..")
}

// ours lists headers that HTTP itself uses: giving them another meaning breaks framing or routing.
var ours = [...]string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Keep-Alive", "Origin",
	"Proxy-Authorization", "Proxy-Connection", "Set-Cookie", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkHeader(text string) (fault, remedy string) {
	switch {
	case strings.Contains(text, "_"):
		return "has an underscore; such headers are dropped at the door", "use hyphens"
	case !isPlainName(text): // RFC 9110 allows more, but "X.A" is HTTP_X_A to some backends, as "X-A" is
		return "is not a header name", ""
	case slices.ContainsFunc(ours[:], func(h string) bool { return strings.EqualFold(h, text) }):
		return "is a header that HTTP itself uses", "choose another name"
	}
	return "", ""
}

func isPlainName(text string) bool {
	for _, c := range []byte(text) {
		if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return text != ""
}

// isEnvironmentID: unreserved characters of RFC 3986, of which no path makes anything else.
func isEnvironmentID(text string) bool {
	return isPlainName(strings.NewReplacer(".", "-", "_", "-").Replace(text)) && strings.Trim(text, ".") != "" && len(text) <= 64
}

// isScopeToken: RFC 6749 section 3.3, NQCHAR.
func isScopeToken(text string) bool { return isQuotable(text) && !strings.Contains(text, " ") }

// isQuotable: what needs no escape in a quoted-string (RFC 9110 section 5.6.4).
func isQuotable(text string) bool {
	for _, c := range []byte(text) {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return text != ""
}

// isOrigin: an origin as browsers serialise it, in lower case, without path and default port.
func isOrigin(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || !goodPort(u) || !isHost(u.Hostname()) {
		return false
	}
	if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return false
	}
	return text == strings.ToLower(u.Scheme+"://"+u.Host)
}
