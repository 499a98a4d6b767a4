package config

import (
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker finds what is wrong between fields; decoding has seen to each by itself. It changes nothing but its problems.
type checker struct {
	*Config
	bad      map[string]bool
	problems Problems
}

func (c *checker) check() {
	c.checkServers()
	c.checkVerifiers()
	c.checkScopes()
	c.checkHeaders()
	c.checkEnvironment()
	c.checkTimes()
	c.checkLedger()
	c.checkCORS()
	c.checkLimits()
}

// fail reports a problem at the field, or where its section stands if the file does not name it. It is silent about fields
// that were wrong by themselves: what follows from that is noise.
func (c *checker) fail(path, fault, remedy string) {
	for said := range c.bad {
		if said == path || within(path, said) || within(said, path) {
			return
		}
	}
	at := c.source.nearest(path)
	c.problems = append(c.problems, Problem{
		File: c.source.file, Line: at.line, Column: at.column, Field: path, Fault: fault, Remedy: remedy,
	})
}

// within reports whether path lies below parent.
func within(path, parent string) bool {
	rest, ok := strings.CutPrefix(path, parent)
	return ok && parent != "" && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// nearest finds where path stands, or else the innermost section around it.
func (s *source) nearest(path string) place {
	for {
		if at, ok := s.at[path]; ok || path == "" {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

// names reports whether the file itself says something about path.
func (c *checker) names(path string) bool {
	_, ok := c.source.at[path]
	return ok
}

func (c *checker) checkServers() {
	asked := c.ExtAuthz.Listen != "" || c.ForwardAuth.Listen != ""
	switch {
	case c.Upstream == nil && !asked:
		c.fail("upstream", "is missing", "write the backend's address, such as http://127.0.0.1:9000")
	case c.Upstream == nil && c.names("listen"):
		c.fail("listen", "has no effect without upstream", "write the backend's address in upstream, or remove listen")
	}
	c.serverTLS("tls", &c.TLS)
	c.serverTLS("ext_authz.tls", &c.ExtAuthz.TLS)
	c.serverTLS("forward_auth.tls", &c.ForwardAuth.TLS)
	c.pair("upstream_tls", c.UpstreamTLS.CertFile, c.UpstreamTLS.KeyFile)
	c.checkAsked()
	if c.Upstream != nil && c.Upstream.Scheme == "http" && c.UpstreamTLS != (UpstreamTLS{}) {
		c.fail("upstream_tls", "has no effect on a plain http backend", "write https in upstream, or remove the section")
	}
	c.checkAddresses()
	if c.Upstream != nil && reaches(upstreamAddress(c.Upstream.Host, c.Upstream.Scheme), c.Listen) {
		c.fail("upstream", "is where Stepward itself listens", "write the address of the backend")
	}
}

// checkAsked looks at the doors where other proxies ask.
func (c *checker) checkAsked() {
	socket := strings.HasPrefix(c.ForwardAuth.Listen, "unix://")
	if c.ForwardAuth.Listen != "" && !socket && len(c.TrustedProxies) == 0 {
		c.fail("trusted_proxies", "names nobody who may ask at forward_auth", "write the proxy's address, such as 127.0.0.1/32")
	}
	for _, section := range []struct{ name, listen string }{{"ext_authz", c.ExtAuthz.Listen}, {"forward_auth", c.ForwardAuth.Listen}} {
		if section.listen == "" && c.names(section.name) && !c.names(section.name+".listen") {
			c.fail(section.name, "has no listen, so that the door stays closed", "write listen, such as 127.0.0.1:9191, or remove the section")
		}
	}
	const longest = 2 * time.Second
	if c.ExtAuthz.DangerouslyRepeatAnswers > longest {
		c.fail("ext_authz.dangerously_repeat_answers", "is more than 2s", "write 1s: Envoy asks again at once or not at all")
	}
	const least, most = 1, 1 << 20
	if c.ExtAuthz.MaxStreams < least || c.ExtAuthz.MaxStreams > most {
		c.fail("ext_authz.max_streams", "is not between 1 and 1048576", "write 1000")
	}
}

// checkAddresses finds two listeners on one address.
func (c *checker) checkAddresses() {
	taken := []struct{ name, address string }{
		{"listen", c.Listen}, {"admin.listen", c.Admin.Listen}, {"ext_authz.listen", c.ExtAuthz.Listen}, {"forward_auth.listen", c.ForwardAuth.Listen},
	}
	if c.Upstream == nil {
		taken = taken[1:]
	}
	for i, later := range taken {
		for _, earlier := range taken[:i] {
			if later.address != "" && (contend(earlier.address, later.address) || earlier.address == later.address && strings.HasPrefix(later.address, "unix:")) {
				c.fail(later.name, "is the address of "+earlier.name+" too", "choose another port")
			}
		}
	}
}

func (c *checker) serverTLS(section string, t *TLS) {
	c.pair(section, t.CertFile, t.KeyFile)
	if t.ClientCAFile != "" && t.CertFile == "" {
		c.fail(section+".client_ca_file", "has no effect without "+section+".cert_file", "add cert_file and key_file")
	}
}

func (c *checker) pair(section, cert, key string) {
	switch {
	case cert == "" && key != "":
		c.fail(section+".key_file", "has no certificate", "add "+section+".cert_file")
	case cert != "" && key == "":
		c.fail(section+".cert_file", "has no key", "add "+section+".key_file")
	}
}

func upstreamAddress(host, scheme string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := map[string]string{"http": "80", "https": "443"}[scheme]
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// contend reports whether two listeners would want the same port. Port 0 never does.
func contend(a, b string) bool {
	hostA, hostB, same := samePort(a, b)
	return same && (sameHost(hostA, hostB) || isWildcard(hostA) || isWildcard(hostB))
}

// reaches reports whether a connection to address would end at the listener, as far as the texts tell.
func reaches(address, listener string) bool {
	host, at, same := samePort(address, listener)
	return same && (sameHost(host, at) || isWildcard(host) || isWildcard(at) && isLoopback(host))
}

func samePort(a, b string) (hostA, hostB string, same bool) {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return hostA, hostB, errA == nil && errB == nil && portA == portB && portA != "0"
}

func sameHost(a, b string) bool {
	plain := func(host string) string {
		if strings.EqualFold(host, "localhost") {
			return "127.0.0.1"
		}
		return strings.ToLower(host)
	}
	return plain(a) == plain(b)
}

func isWildcard(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

func (c *checker) checkVerifiers() {
	c.verifier("session", &c.Session.Verifier)
	if c.Elevated.named() {
		c.verifier("elevated", &c.Elevated.Verifier)
	}
	switch {
	case c.MFA.named():
		c.verifier("mfa", &c.MFA.Verifier)
	case c.names("mfa.types"), c.names("mfa.require_jti") && c.MFA.Introspection.URL == nil:
		c.fail("mfa", "says how tokens are verified, but names no issuer",
			"add issuer, audience and jwks_url, or remove types and require_jti")
	}
	c.introspection(&c.MFA.Introspection)
}

func (c *checker) introspection(in *Introspection) {
	const section = "mfa.introspection"
	switch {
	case in.URL == nil && c.names(section):
		c.fail(section+".url", "is missing", "write the address of the endpoint, or remove the section")
	case in.BearerFile != "" && in.BasicFile != "":
		c.fail(section+".basic_file", "stands beside bearer_file", "keep the one that the endpoint asks for")
	case in.URL != nil && in.URL.Scheme == "http" && in.CAFile != "":
		c.fail(section+".ca_file", "has no effect on a plain http endpoint", "write https in url, or remove it")
	}
}

func (c *checker) verifier(section string, v *Verifier) {
	if len(v.Issuers) > 0 {
		c.eitherOr(section)
		c.issuers(section, v.Issuers)
	} else {
		if c.names(section + ".issuers") {
			c.fail(section+".issuers", "is an empty list", "name an issuer")
			return
		}
		c.issuer(section, Issuer{Issuer: v.Issuer, Audience: v.Audience, JWKSURL: v.JWKSURL, JWKSFile: v.JWKSFile})
	}
	c.notEmpty(section+".algorithms", len(v.Algorithms))
	c.notEmpty(section+".types", len(v.Types))
}

func (c *checker) notEmpty(path string, have int) {
	if have == 0 && c.names(path) {
		c.fail(path, "is an empty list", "remove the key for the default, or name at least one")
	}
}

func (c *checker) eitherOr(section string) {
	for _, name := range [...]string{"issuer", "audience", "jwks_url", "jwks_file"} {
		if path := section + "." + name; c.names(path) {
			c.fail(path, "stands beside "+section+".issuers", "move it into the list, or remove the list")
		}
	}
}

// issuer checks that one issuer is complete.
func (c *checker) issuer(path string, is Issuer) {
	if len(is.Issuer) == 0 {
		c.fail(path+".issuer", "is missing", "write what the token's iss says, letter by letter")
	}
	if len(is.Audience) == 0 {
		c.fail(path+".audience", "is missing", "write what the token's aud must contain, such as https://app.example")
	}
	c.noneEmpty(path+".issuer", is.Issuer)
	c.noneEmpty(path+".audience", is.Audience)
	switch {
	case is.JWKSURL == nil && is.JWKSFile == "":
		c.fail(path+".jwks_url", "is missing", "write jwks_url, or jwks_file for keys on disk")
	case is.JWKSURL != nil && is.JWKSFile != "":
		c.fail(path+".jwks_file", "stands beside jwks_url", "keep one of them: an issuer has one set of keys")
	}
}

func (c *checker) noneEmpty(path string, texts Strings) {
	for i, text := range texts {
		if text != "" {
			continue
		}
		at := path + "[" + strconv.Itoa(i) + "]"
		if !c.names(at) {
			at = path
		}
		c.fail(at, "is empty", "write what the token says, letter by letter")
	}
}

// issuers checks a list: complete entries, and no issuer twice, since each has its own keys and only those.
func (c *checker) issuers(section string, list []Issuer) {
	seen := make(map[string]string)
	for i, is := range list {
		path := section + ".issuers[" + strconv.Itoa(i) + "]"
		c.issuer(path, is)
		if is.Environment == "" {
			c.fail(path+".environment", "is missing", "write the environment for which this issuer speaks")
		}
		if c.Environment.Fixed != "" && is.Environment != "" && is.Environment != c.Environment.Fixed {
			c.fail(path+".environment", "is not the one of environment.fixed", "remove the issuer, or environment.fixed")
		}
		c.notEmpty(path+".algorithms", len(is.Algorithms))
		c.notEmpty(path+".types", len(is.Types))
		for _, name := range is.Issuer {
			if first, twice := seen[name]; twice && name != "" {
				c.fail(path+".issuer", "is an issuer of "+first+" too", "give each issuer one entry: its keys are its own")
			}
			seen[name] = path
		}
	}
}

// checkScopes keeps apart the words that tell a session from an elevated token (design.md section 10, 7).
func (c *checker) checkScopes() {
	if len(c.Session.Scopes) == 0 {
		c.fail("session.scopes", "is an empty list", "name the scopes that only sessions carry, or remove the key")
	}
	if len(c.Elevated.Scopes) == 0 {
		c.fail("elevated.scopes", "is an empty list", "name the scopes that only elevated tokens carry, or remove the key")
	}
	c.disjointScopes()
	c.deviceScopes()
}

func (c *checker) disjointScopes() {
	for i, scope := range c.Elevated.Scopes {
		at := slices.Index(c.Session.Scopes, scope)
		if at < 0 {
			continue
		}
		path, other := fmt.Sprintf("elevated.scopes[%d]", i), "session.scopes"
		if !c.names(path) {
			path, other = fmt.Sprintf("session.scopes[%d]", at), "elevated.scopes"
		}
		c.fail(path, "is one of "+other+" too", "a word tells one kind of token; keep it in one list")
	}
}

func (c *checker) deviceScopes() {
	device := [...]struct{ path, scope string }{
		{"device.registered_scope", c.Device.RegisteredScope},
		{"device.unregistered_scope", c.Device.UnregisteredScope},
		{"device.additional_auth_scope", c.Device.AdditionalAuthScope},
	}
	for i, d := range device {
		c.sessionWord(d.path, d.scope)
		for j, earlier := range device[:i] {
			if earlier.scope != d.scope {
				continue
			}
			path, other := d.path, device[j].path
			if !c.names(path) {
				path, other = other, path
			}
			c.fail(path, "is "+other+" too", "the two say different things; write the scope that says this one")
		}
	}
}

// sessionWord blames the list where the file names only that; the default it then lacks is no secret.
func (c *checker) sessionWord(path, scope string) {
	switch {
	case slices.Contains(c.Session.Scopes, scope), len(c.Session.Scopes) == 0, c.anyBad("session.scopes"):
	case !c.names(path) && c.names("session.scopes"):
		c.fail("session.scopes", "lacks "+scope+", which is "+path, "add it, so that no session passes for an elevated token")
	default:
		c.fail(path, "is not one of session.scopes", "add it there, so that no session passes for an elevated token")
	}
}

// anyBad reports whether something was said about path or anything in it.
func (c *checker) anyBad(path string) bool {
	for said := range c.bad {
		if said == path || within(said, path) {
			return true
		}
	}
	return false
}

// role is a header and what it is for.
type role struct {
	path, header string
	ours         bool // written by us and not by clients
}

func (c *checker) roles() []role {
	return []role{
		{"session.header", c.Session.Header, false},
		{"elevated.header", c.Elevated.Header, false},
		{"mfa.header", c.MFA.Header, false},
		{"environment.header", c.Environment.Header, false},
		{"client.api_version_header", c.Client.APIVersionHeader, false},
		{"client.sdk_version_header", c.Client.SDKVersionHeader, false},
		{"client.wallet_sdk_version_header", c.Client.WalletSDKVersionHeader, false},
		{"identity_headers.subject", c.IdentityHeaders.Subject, true},
		{"identity_headers.scopes", c.IdentityHeaders.Scopes, true},
		{"identity_headers.decision_id", c.IdentityHeaders.DecisionID, true},
		{"identity_headers.environment", c.IdentityHeaders.Environment, true},
	}
}

// checkHeaders lets no header play two roles: a client's value would be taken for something else.
func (c *checker) checkHeaders() {
	if c.Session.Header == "" && c.Session.Cookie == "" {
		c.fail("session.header", "is empty, and there is no session.cookie", "write where the session token travels")
	}
	c.checkCheck()
	first := make(map[string]role)
	for _, r := range c.roles() {
		if r.header == "" {
			continue
		}
		if !c.checkRole(r) {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(r.header)
		if other, taken := first[name]; taken {
			c.sharedHeader(other.path, r.path)
			continue
		}
		first[name] = r
	}
	c.checkUnderscores(first)
}

// checkCheck finds what says how to ask without saying what.
func (c *checker) checkCheck() {
	for _, path := range [...]string{"session.check.cache", "session.check.timeout"} {
		if c.Session.Check.Path == "" && c.names(path) {
			c.fail(path, "has no effect without session.check.path", "add it, such as path: /api/v0/sdk/{environmentId}/session")
		}
	}
}

// checkRole refuses to read what is removed from requests before anything reads it, and to overwrite the session.
func (c *checker) checkRole(r role) bool {
	name := textproto.CanonicalMIMEHeaderKey(r.header)
	switch {
	case strings.HasPrefix(name, deviceHeaders):
		c.fail(r.path, "is a header of device registration", "choose another name")
	case r.ours && name == "Authorization":
		c.fail(r.path, "is the header in which the session travels", "choose another name, such as Stepward-Subject")
	case !r.ours && removedFromClients(name):
		c.fail(r.path, "is a header that is removed from clients' requests", "choose one that clients may send")
	default:
		return true
	}
	return false
}

// deviceHeaders begins the names of headers whose meaning is Dynamic's (docs/devices.md).
const deviceHeaders = "X-Dynamic-Device-"

// removedFromClients knows the families; internal/framing, which removes them, knows some single names more.
func removedFromClients(name string) bool {
	return strings.HasPrefix(name, "Stepward-") || strings.HasPrefix(name, "X-Forwarded-") ||
		name == "Forwarded" || name == "X-Real-Ip"
}

func (c *checker) checkUnderscores(roles map[string]role) {
	for i, text := range c.UnderscoreHeaders {
		path := fmt.Sprintf("underscore_headers[%d]", i)
		name := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(text, "_", "-"))
		other, taken := roles[name]
		switch {
		case taken:
			c.fail(path, "can be read as the header of "+other.path, "remove it")
		case removedFromClients(name), strings.HasPrefix(name, deviceHeaders), slices.Contains(ours[:], name), name == "Authorization":
			c.fail(path, "can be read as "+name, "remove it")
		}
	}
}

// sharedHeader blames the one of the two that the file names.
func (c *checker) sharedHeader(a, b string) {
	if !c.names(b) && c.names(a) {
		a, b = b, a
	}
	c.fail(b, "is the header of "+a+" too", "give each its own")
}

func (c *checker) checkEnvironment() {
	if c.Environment.Fixed != "" && c.names("environment.from") {
		c.fail("environment.from", "stands beside environment.fixed", "keep one of them")
	}
	if c.names("environment.fixed") && c.Environment.Fixed == "" {
		c.fail("environment.fixed", "is empty", "write the environment's id, or remove the key")
	}
	c.checkSettings()
}

func (c *checker) checkSettings() {
	const section = "environment.settings"
	s := &c.Environment.Settings
	if s.URL == nil {
		if c.names(section) {
			c.fail(section+".url", "is missing", "write a path at upstream such as /api/v0/sdk/{environmentId}/settings, or remove the section")
		}
		return
	}
	c.notEmpty(section+".environments", len(s.Environments))
	ids := c.SettingsEnvironments()
	if len(ids) == 0 && !c.names(section+".environments") {
		c.fail(section+".environments", "is missing, and neither session.issuers nor environment.fixed names an environment", "list the ids")
	}
	// Listed ones have been looked at; elsewhere an id may be any text.
	if len(s.Environments) == 0 && slices.ContainsFunc(ids, func(id string) bool { return !isEnvironmentID(id) }) {
		c.fail(section+".environments", "is missing, and an id of another section cannot stand in a path", "list the ids that can")
	}
	for i, id := range s.DangerouslyAllowDowngrade {
		if !slices.Contains(ids, id) {
			c.fail(fmt.Sprintf("%s.dangerously_allow_downgrade[%d]", section, i), "is none of the environments that are asked about",
				"mend the id, or remove it")
		}
	}
	if s.CacheFile != "" && s.CacheFile == c.Ledger.Path {
		c.fail(section+".cache_file", "is the ledger's file", "choose another")
	}
	c.ordered(section+".timeout", s.Timeout, section+".every", s.Every)
}

// maxLeeway: beyond a minute a leeway is a longer life for stolen tokens (FAPI 2.0 section 5.3.2.1).
const maxLeeway = time.Minute

func (c *checker) checkTimes() {
	if c.Leeway > maxLeeway {
		c.fail("leeway", "is more than 60s", "mend the clocks; 10s is plenty for synchronised ones")
	}
	c.ordered("jwks.min_refresh", c.JWKS.MinRefresh, "jwks.refresh_every", c.JWKS.RefreshEvery)
	c.ordered("jwks.refresh_every", c.JWKS.RefreshEvery, "jwks.max_stale", c.JWKS.MaxStale)
	if c.Challenge.RetryAfter%time.Second != 0 {
		c.fail("challenge.retry_after", "is not in whole seconds", "write 1s or more: Retry-After counts seconds")
	}
}

func (c *checker) ordered(shortPath string, short time.Duration, longPath string, long time.Duration) {
	if short <= long {
		return
	}
	at, fault := shortPath, "is longer than "+longPath
	if !c.names(shortPath) {
		at, fault = longPath, "is shorter than "+shortPath
	}
	c.fail(at, fault+" ("+longPath+" must be at least "+shortPath+")", "change one of them")
}

func (c *checker) checkLedger() {
	if c.Ledger.Kind == LedgerMemory && !c.DangerouslySingleReplica {
		c.fail("ledger", "memory: forgets at a restart and is not shared between replicas",
			"write bolt:///var/lib/stepward/ledger.db, or add dangerously_single_replica: true")
	}
	o := &c.LedgerOptions
	for name, takes := range map[string]bool{
		"password_file": c.Ledger.Kind.Shared(), "prefix": c.Ledger.Kind.Shared(), "capacity": !c.Ledger.Kind.Shared(),
		"ca_file": c.Ledger.Kind == LedgerRedis, "cert_file": c.Ledger.Kind == LedgerRedis, "key_file": c.Ledger.Kind == LedgerRedis,
		"wait_replicas": c.Ledger.Kind == LedgerRedis, "wait_timeout": c.Ledger.Kind == LedgerRedis,
	} {
		if at := "ledger_options." + name; c.names(at) && !takes {
			c.fail(at, "means nothing for this ledger", "remove it")
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		c.fail("ledger_options", "has one of cert_file and key_file", "write both, or none")
	}
	if !isPrefix(o.Prefix) {
		c.fail("ledger_options.prefix", "is not a name", "write lower-case letters, digits and underscores, beginning with a letter")
	}
}

// isPrefix is what a schema of PostgreSQL may be called without quotes.
func isPrefix(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 48
}

func (c *checker) checkCORS() {
	origins := c.Challenge.CORS.AllowedOrigins
	all := slices.Index(origins, "*")
	switch {
	case all >= 0 && len(origins) > 1:
		c.fail(fmt.Sprintf("challenge.cors.allowed_origins[%d]", all),
			"\"*\" stands beside other origins", "keep it alone, or remove it")
	case all >= 0 && c.Challenge.CORS.AllowCredentials:
		c.fail("challenge.cors.allow_credentials", "is true for every origin (\"*\")", "name the origins")
	}
}

const (
	leastHeader = 16 * KiB // an elevated token and a session of 8 KiB at most each
	mostHeader  = MiB
)

func (c *checker) checkLimits() {
	if c.Limits.MaxHeader < leastHeader || c.Limits.MaxHeader > mostHeader {
		c.fail("limits.max_header", "is not between 16KiB and 1MiB", "write 32KiB: two tokens and ordinary headers fit into that")
	}
}
