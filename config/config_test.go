package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/config"
)

const secret = "s3cr3t-Value! that#must/not appear"

// minimal is the least that loads.
const minimal = `upstream: http://127.0.0.1:9000
session: {issuer: app/env, audience: https://app.example, jwks_url: https://keys.example/jwks}
`

func env(name string) (string, bool) {
	values := map[string]string{
		"SECRET": secret,
		"EMPTY":  "",
		"INJECT": "Authorization\ncookie: stolen",
		"PORT":   "7000",
		"BOOL":   "false",
		"COUNT":  "12",
		"LIST":   "[a, b]",
		"DOLLAR": "${SECRET}",
	}
	value, ok := values[name]
	return value, ok
}

func options() config.LoadOptions { return config.LoadOptions{Env: env} }

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("/etc/stepward/stepward.yaml", []byte(text), options())
	if err != nil {
		t.Fatalf("does not load:\n%v", err)
	}
	return c
}

// faultOf parses what must not load and returns its only problem.
func faultOf(t *testing.T, text string) config.Problem {
	t.Helper()
	_, err := config.Parse("stepward.yaml", []byte(text), options())
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) != 1 {
		t.Fatalf("want one problem, got:\n%v", err)
	}
	return problems[0]
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d goldens: %v", len(files), err)
	}
	update := flag.Lookup("update").Value.String() == "true"
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := config.Load(file, options())
			if err == nil || c != nil {
				t.Fatalf("loads: %v", c)
			}
			got := err.Error() + "\n"
			if strings.Contains(got, "s3cr3t") || strings.Contains(got, "hunter2") || strings.Contains(got, "stolen") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".want"
			if update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func TestAMissingFileIsOneClearProblem(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), options())
	var problem config.Problem
	if !errors.As(err, &problem) || problem.Line != 0 || !strings.Contains(problem.Fault, "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestAHugeFileIsRefusedUnread(t *testing.T) {
	p := faultOf(t, minimal+strings.Repeat("#", 1<<20))
	if !strings.Contains(p.Fault, "more than") {
		t.Errorf("got %v", p)
	}
}

func TestDefaults(t *testing.T) {
	c := parse(t, minimal)
	rows := []struct {
		key       string
		got, want any
	}{
		{"listen", c.Listen, "127.0.0.1:8080"},
		{"tls", c.TLS, config.TLS{MinVersion: "TLS1.2"}},
		{"upstream_tls", c.UpstreamTLS, config.UpstreamTLS{}},
		{"admin.listen", c.Admin.Listen, "127.0.0.1:8081"},
		{"trusted_proxies", len(c.TrustedProxies), 0},
		{"session.header", c.Session.Header, "Authorization"},
		{"session.cookie", c.Session.Cookie, ""},
		{"session.max_lifetime", c.Session.MaxLifetime, time.Duration(0)},
		{"session.require_jti", c.Session.RequireJTI, false},
		{"session.forward", c.Session.Forward, true},
		{"session.scopes", c.Session.Scopes,
			[]string{"user:basic", "requiresAdditionalAuth", "userDataForm", "waasBackupToken", "device:register"}},
		{"session algorithms", c.SessionIssuers()[0].Algorithms, []string{"RS256"}},
		{"session types", c.SessionIssuers()[0].Types, []string{"JWT", ""}},
		{"elevated.header", c.Elevated.Header, "x-dyn-elevated-access-token"},
		{"elevated.max_lifetime", c.Elevated.MaxLifetime, 10 * time.Minute},
		{"elevated.require_jti", c.Elevated.RequireJTI, false},
		{"elevated.forward", c.Elevated.Forward, false},
		{"elevated.scopes", len(c.Elevated.Scopes), 34},
		{"elevated issuers", c.ElevatedIssuers(), c.SessionIssuers()},
		{"mfa.header", c.MFA.Header, "x-mfa-auth-token"},
		{"mfa.max_lifetime", c.MFA.MaxLifetime, time.Duration(0)},
		{"mfa.remember", c.MFA.Remember, 720 * time.Hour},
		{"mfa.enrolled_claim", c.MFA.EnrolledClaim, ""},
		{"mfa.forward", c.MFA.Forward, false},
		{"mfa issuers", len(c.MFAIssuers()), 0},
		{"jwks", c.JWKS, config.JWKS{StartWait: 30 * time.Second, MinRefresh: 15 * time.Second, RefreshEvery: 5 * time.Minute,
			MaxStale: time.Hour, Timeout: 3 * time.Second}},
		{"leeway", c.Leeway, 10 * time.Second},
		{"environment", c.Environment, config.Environment{From: "session", PathParam: "environmentId", Settings: config.EnvironmentSettings{
			Every: time.Minute, Timeout: 5 * time.Second, CacheFile: "/var/lib/stepward/settings.json"}}},
		{"underscore_headers", len(c.UnderscoreHeaders), 0},
		{"client", c.Client,
			config.Client{APIVersionHeader: "x-dyn-api-version", Undeclared: "allow", SDKVersionHeader: "x-dyn-version",
				SDKVersionClaim: "sdkVersion", WalletSDKVersionHeader: "x-dyn-wallet-sdk-version"}},
		{"device", c.Device, config.Device{RegisteredScope: "user:basic", UnregisteredScope: "device:register",
			AdditionalAuthScope: "requiresAdditionalAuth", NonceLifetime: 24 * time.Hour}},
		{"session.check", c.Session.Check, config.SessionCheck{Cache: 10 * time.Second, Timeout: 2 * time.Second}},
		{"policy", c.Policy, config.Policy{WatchInterval: 2 * time.Second, CacheSize: 10_000, EvalTimeout: time.Second}},
		{"unmatched_routes", c.UnmatchedRoutes, "deny"},
		{"ledger", c.Ledger, config.Ledger{Kind: config.LedgerBolt, Path: "/var/lib/stepward/ledger.db"}},
		{"ledger_options", c.LedgerOptions, config.LedgerOptions{
			Capacity: 1_000_000, ReserveTimeout: time.Second, Prefix: "stepward", WaitTimeout: 30 * time.Millisecond,
		}},
		{"dangerously_single_replica", c.DangerouslySingleReplica, false},
		{"challenge", c.Challenge, config.Challenge{Profile: "sdk", Realm: "wallet", TypeBase: "urn:stepward:problem:",
			Domain: "stepward.dev", RetryAfter: time.Second}},
		{"identity_headers", c.IdentityHeaders, config.IdentityHeaders{Subject: "Stepward-Subject", Scopes: "Stepward-Scopes",
			DecisionID: "Stepward-Decision-Id"}},
		{"limits", c.Limits, config.Limits{MaxHeader: 32 << 10, MaxBody: 10 << 20, MaxConnections: 10_000,
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, BodyIdle: 30 * time.Second, WriteIdle: time.Minute,
			Stream: time.Hour, Drain: 30 * time.Second, UpstreamDial: 5 * time.Second, UpstreamResponseHeader: time.Minute}},
		{"decision_log", c.DecisionLog, config.DecisionLog{To: "stdout", Buffer: 4096}},
		{"log", c.Log, config.Log{Level: "info", Format: "text"}},
	}
	for _, row := range rows {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: got %v, want %v", row.key, row.got, row.want)
		}
	}
	if got := c.Warnings(); len(got) != 0 {
		t.Errorf("the defaults are warned of: %q", got)
	}
}

func TestDefaultsAreFreshEachTime(t *testing.T) {
	config.Defaults().Session.Scopes[0] = "changed"
	if got := config.Defaults().Session.Scopes[0]; got != "user:basic" {
		t.Errorf("got %q", got)
	}
}

func TestValuesAreReadAsWritten(t *testing.T) {
	c := parse(t, minimal+`
listen: ":${PORT}"
trusted_proxies: [10.0.0.0/8, "fd00::/8"]
tls: {cert_file: tls/a.crt, key_file: /abs/a.key}
mfa: {issuer: m, audience: [x, y], jwks_file: keys.json, forward: true}
elevated: {types: [at+jwt], forward: "${BOOL}"}
policy: {path: ./rego, cache_size: 0, watch_interval: 0}
ledger: bolt:data/ledger.db
ledger_options: {capacity: "${COUNT}"}
limits: {max_body: 0, max_header: 65536, max_connections: 20_000}
decision_log: {to: logs/decisions.jsonl}
identity_headers: {subject: "", environment: Stepward-Environment}
challenge: {realm: "$${LIST} ${LIST} $5 ${DOLLAR}", verify_url: https://app.example/verify}
`)
	rows := []struct {
		name      string
		got, want any
	}{
		{"a variable inside an address", c.Listen, ":7000"},
		{"networks", c.TrustedProxies[1].String(), "fd00::/8"},
		{"a path beside the file", c.TLS.CertFile, "/etc/stepward/tls/a.crt"},
		{"an absolute path", c.TLS.KeyFile, "/abs/a.key"},
		{"one issuer as a text", c.MFA.Issuer, config.Strings{"m"}},
		{"several audiences", c.MFA.Audience, config.Strings{"x", "y"}},
		{"the elevated token's own typ", c.ElevatedIssuers()[0].Types, []string{"at+jwt"}},
		{"the session's typ beside it", c.SessionIssuers()[0].Types, []string{"JWT", ""}},
		{"a boolean variable", c.Elevated.Forward, false},
		{"a cache switched off", c.Policy.CacheSize, 0},
		{"a watch switched off", c.Policy.WatchInterval, time.Duration(0)},
		{"a policy directory", c.Policy.Path, "/etc/stepward/rego"},
		{"a ledger beside the file", c.Ledger.Path, "/etc/stepward/data/ledger.db"},
		{"a number from a variable", c.LedgerOptions.Capacity, 12},
		{"no body limit", c.Limits.MaxBody, config.Size(0)},
		{"a size in bytes", c.Limits.MaxHeader, 64 * config.KiB},
		{"a number with underscores", c.Limits.MaxConnections, 20_000},
		{"a log file", c.DecisionLog.To, "/etc/stepward/logs/decisions.jsonl"},
		{"an identity header switched off", c.IdentityHeaders.Subject, ""},
		{"escapes, and variables replaced once and never parsed", c.Challenge.Realm, "${LIST} [a, b] $5 ${SECRET}"},
		{"a URL", c.Challenge.VerifyURL.Host, "app.example"},
	}
	for _, row := range rows {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, row.got, row.want)
		}
	}
}

func TestLedgerSpellings(t *testing.T) {
	for text, want := range map[string]config.Ledger{
		"bolt:///data/l.db":                     {Kind: config.LedgerBolt, Path: "/data/l.db"},
		"bolt:/data/l.db":                       {Kind: config.LedgerBolt, Path: "/data/l.db"},
		"bolt:l.db":                             {Kind: config.LedgerBolt, Path: "/etc/stepward/l.db"},
		"bolt:./l.db":                           {Kind: config.LedgerBolt, Path: "/etc/stepward/l.db"},
		"redis://h:6379/0":                      {Kind: config.LedgerRedis, URL: "redis://h:6379/0"},
		"rediss+sentinel://u@a:1,b:2/main":      {Kind: config.LedgerRedis, URL: "rediss+sentinel://u@a:1,b:2/main"},
		"postgres://u@h/db?sslmode=verify-full": {Kind: config.LedgerPostgres, URL: "postgres://u@h/db?sslmode=verify-full"},
		`"memory:"`:                             {Kind: config.LedgerMemory},
		"memory://":                             {Kind: config.LedgerMemory},
	} {
		c := parse(t, minimal+"dangerously_single_replica: true\nledger: "+text+"\n")
		if c.Ledger != want {
			t.Errorf("%s: got %v, want %v", text, c.Ledger, want)
		}
	}
	for _, text := range []string{
		"bolt:", "bolt://", "bolt:///", "bolt://host/l.db", "bolt:l.db?sync=off", "/data/l.db", "memory:x", "bolt:..",
		"redis:", "redis://", "redis://:6379", "redis://u:hunter2@h", "redis://h#f", "redis://h/0?db=1", "postgres://u@h/d?password=hunter2",
		"postgres:///d", "mysql://h/d", "redis://u:p@w@h",
	} {
		if p := faultOf(t, minimal+"ledger: \""+text+"\"\n"); p.Field != "ledger" || p.Remedy == "" || strings.Contains(p.Error(), "hunter2") {
			t.Errorf("%s: got %v", text, p)
		}
	}
}

// A remote ledger that does not answer at once is more likely gone than slow, unless the operator knows better.
func TestLedgerTimeouts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"ledger: bolt:l.db\n": time.Second, "ledger: redis://h\n": 50 * time.Millisecond, "ledger: postgres://h/d\n": 250 * time.Millisecond,
		"ledger: redis://h\nledger_options: {reserve_timeout: 1s}\n": time.Second,
	} {
		if c := parse(t, minimal+text); c.LedgerOptions.ReserveTimeout != want {
			t.Errorf("%s: got %s, want %s", text, c.LedgerOptions.ReserveTimeout, want)
		}
	}
}

func TestLedgerOptionsOfAnotherLedger(t *testing.T) {
	for text, field := range map[string]string{
		"ledger: bolt:l.db\nledger_options: {password_file: /p}\n":     "ledger_options.password_file",
		"ledger: redis://h\nledger_options: {capacity: 5}\n":           "ledger_options.capacity",
		"ledger: postgres://h/d\nledger_options: {wait_replicas: 1}\n": "ledger_options.wait_replicas",
		"ledger: postgres://h/d\nledger_options: {ca_file: /ca}\n":     "ledger_options.ca_file",
		"ledger: rediss://h\nledger_options: {cert_file: /c}\n":        "ledger_options",
		"ledger: redis://h\nledger_options: {prefix: \"my-fleet:\"}\n": "ledger_options.prefix",
	} {
		if p := faultOf(t, minimal+text); p.Field != field || p.Remedy == "" {
			t.Errorf("%s: got %v", text, p)
		}
	}
}

func TestIssuersOfSeveralEnvironments(t *testing.T) {
	c := parse(t, `upstream: http://127.0.0.1:9000
session:
  algorithms: [ES256]
  issuers:
    - {environment: one, issuer: [app/one, other/one], audience: a, jwks_url: https://keys.example/one}
    - {environment: two, issuer: app/two, audience: a, jwks_file: two.json, algorithms: [EdDSA], types: [at+jwt]}
`)
	got := c.ElevatedIssuers()
	if len(got) != 2 || got[0].Environment != "one" || got[0].Algorithms[0] != "ES256" || got[1].Algorithms[0] != "EdDSA" {
		t.Errorf("elevated does not take the session's issuers: %+v", got)
	}
	if got[1].Types[0] != "at+jwt" || got[1].JWKSFile != "/etc/stepward/two.json" {
		t.Errorf("got %+v", got[1])
	}
	got[0].Types[0] = "changed"
	if again := c.SessionIssuers(); again[0].Types[0] != "JWT" {
		t.Errorf("issuers share memory: %v", again[0].Types)
	}
}

func TestAnElevatedSectionThatNamesAnyOfItsIssuerNamesAll(t *testing.T) {
	_, err := config.Parse("c.yaml", []byte(minimal+"elevated: {algorithms: [ES256]}\n"), options())
	for _, field := range []string{"elevated.issuer: is missing", "elevated.audience: is missing", "elevated.jwks_url: is missing"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("no %q in:\n%v", field, err)
		}
	}
}

func TestWhatWeakensIsWarnedOf(t *testing.T) {
	c := parse(t, strings.Replace(minimal, "127.0.0.1:9000", "backend:9000", 1)+`
listen: 0.0.0.0:8080
admin: {listen: ":8081"}
elevated: {forward: true, max_lifetime: 2h}
mfa: {forward: true}
ledger: "memory:"
dangerously_single_replica: true
unmatched_routes: dangerously_pass
decision_log: {to: "off"}
environment:
  settings: {url: "/x/{environmentId}", environments: [a], cache_file: "", dangerously_allow_downgrade: [a]}
`)
	var keys []string
	for _, warning := range c.Warnings() {
		key, _, _ := strings.Cut(warning, ":")
		keys = append(keys, key)
	}
	want := []string{"dangerously_single_replica", "ledger", "unmatched_routes", "elevated.forward", "mfa.forward",
		"elevated.max_lifetime", "admin.listen", "listen", "upstream", "environment.settings.dangerously_allow_downgrade",
		"environment.settings.cache_file", "decision_log.to"}
	if !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
}

func TestDoorsThatAreReachedFromAfarAreWarnedOf(t *testing.T) {
	rows := []struct{ name, text, want string }{
		{"on loopback", "ext_authz: {listen: '127.0.0.1:9191'}\nforward_auth: {listen: '[::1]:9192'}\ntrusted_proxies: ['::1/128']\n", ""},
		{"on sockets", "ext_authz: {listen: 'unix:///run/a'}\nforward_auth: {listen: 'unix:///run/b'}\n", ""},
		{"from everywhere", "ext_authz: {listen: ':9191'}\nforward_auth: {listen: ':9192'}\ntrusted_proxies: [10.0.0.0/8]\n",
			"ext_authz.listen forward_auth.listen"},
		{"without a word on who may ask", "ext_authz: {listen: ':9191', tls: {cert_file: a, key_file: b}}\n", "ext_authz.listen"},
		{"by certificate", "ext_authz: {listen: ':9191', tls: {cert_file: a, key_file: b, client_ca_file: c}}\n" +
			"forward_auth: {listen: ':9192', tls: {cert_file: a, key_file: b}}\ntrusted_proxies: [10.0.0.0/8]\n", ""},
		{"answers that are repeated", "ext_authz: {listen: 'unix:///run/a', dangerously_repeat_answers: 2s}\n", "ext_authz.dangerously_repeat_answers"},
	}
	for _, row := range rows {
		var keys []string
		for _, warning := range parse(t, minimal+row.text).Warnings() {
			key, _, _ := strings.Cut(warning, ":")
			keys = append(keys, key)
		}
		if got := strings.Join(keys, " "); got != row.want {
			t.Errorf("%s: warned of %q, want %q", row.name, got, row.want)
		}
	}
}

// Where other proxies forward, there is no backend to name, and nothing that would reach it.
func TestWithoutABackendStepwardOnlyAnswers(t *testing.T) {
	session := strings.TrimPrefix(minimal, "upstream: http://127.0.0.1:9000\n")
	c := parse(t, session+"ext_authz: {listen: 'unix:///run/a'}\n")
	if c.Upstream != nil || c.ExtAuthz.Listen != "unix:///run/a" || c.ExtAuthz.MaxStreams != 1000 || c.ExtAuthz.SpendBudget != 60*time.Millisecond {
		t.Errorf("got %v, %+v", c.Upstream, c.ExtAuthz)
	}
	if p := faultOf(t, session); p.Field != "upstream" {
		t.Errorf("neither backend nor door: %+v", p)
	}
	p := faultOf(t, session+"listen: 127.0.0.1:8080\next_authz: {listen: 'unix:///run/a'}\n")
	if p.Field != "listen" || !strings.Contains(p.Fault, "without upstream") {
		t.Errorf("an address that nobody listens on: %+v", p)
	}
	parse(t, session+"ext_authz: {listen: '127.0.0.1:8080'}\n") // the default of listen, which is not used
}

func TestParsingTheSameFileTwiceGivesTheSame(t *testing.T) {
	data := []byte(minimal)
	before := bytes.Clone(data)
	a, errA := config.Parse("a.yaml", data, options())
	b, errB := config.Parse("a.yaml", data, options())
	if errA != nil || errB != nil || !reflect.DeepEqual(a, b) || !bytes.Equal(data, before) {
		t.Errorf("differ: %v %v", errA, errB)
	}
}

// settingsOf is a section that asks upstream.
func settingsOf(members string) string {
	return "environment: {settings: {url: '/x/{environmentId}', " + members + "}}\n"
}

// settingsFrom is a section that asks for the environment a.
func settingsFrom(address string) string {
	return "environment: {settings: {environments: [a], url: '" + address + "'}}\n"
}

func TestWhomSettingsAreAskedOf(t *testing.T) {
	two := "upstream: https://backend:9443\nsession: {issuers: [{environment: a, issuer: i, audience: w, jwks_file: k.json}, " +
		"{environment: b, issuer: j, audience: w, jwks_file: k.json}, {environment: a, issuer: k, audience: w, jwks_file: k.json}]}\n"
	for _, row := range []struct {
		name, text, url string
		upstream        bool
		ids             []string
	}{
		{"nobody", minimal, "", false, nil},
		{"the backend", two + settingsOf("every: 1m"), "https://backend:9443/x/%7BenvironmentId%7D", true, []string{"a", "b"}},
		{"the backend of one environment", minimal + "environment: {fixed: f, settings: {url: '/x/{environmentId}?sdkVersion=a'}}\n",
			"http://127.0.0.1:9000/x/%7BenvironmentId%7D?sdkVersion=a", true, []string{"f"}},
		{"somebody else, of some", two + "environment: {settings: {environments: [c], url: 'https://a.example/{environmentId}'}}\n",
			"https://a.example/%7BenvironmentId%7D", false, []string{"c"}},
		{"somebody on this machine", minimal + settingsFrom("http://[::1]:80/{environmentId}"), "http://[::1]:80/%7BenvironmentId%7D", false, []string{"a"}},
	} {
		c := parse(t, row.text)
		u, upstream := c.SettingsURL()
		got := ""
		if u != nil {
			got = u.String()
		}
		if ids := c.SettingsEnvironments(); got != row.url || upstream != row.upstream || u != nil && !slices.Equal(ids, row.ids) {
			t.Errorf("%s: got %s, %v, %v", row.name, got, upstream, ids)
		}
	}
}

func TestOneMistakeIsOneProblem(t *testing.T) {
	long := strings.Repeat("x", 70)
	rows := []struct{ name, text, field, fault string }{
		{"an API path in the backend's URL", "upstream: http://127.0.0.1:9000/\n", "upstream", "has a path"},
		{"a backend by another scheme", "upstream: ftp://127.0.0.1\n", "upstream", "neither http nor https"},
		{"a backend with port 0", "upstream: http://127.0.0.1:0\n", "upstream", "is not a URL"},
		{"a backend with an empty port", "upstream: 'http://127.0.0.1:'\n", "upstream", "is not a URL"},
		{"a fragment", "challenge: {verify_url: 'https://app.example/#x'}\n", "challenge.verify_url", "has a fragment"},
		{"a page over http", "challenge: {verify_url: 'http://app.example/'}\n", "challenge.verify_url", "plain http"},
		{"metadata that is no URL", "challenge: {resource_metadata: here}\n", "challenge.resource_metadata", "is not a URL"},
		{"a negative number", "ledger_options: {capacity: -1}\n", "ledger_options.capacity", "is negative"},
		{"a ledger for nothing", "ledger_options: {capacity: 0}\n", "ledger_options.capacity", "more than nothing"},
		{"a head of no bytes", "limits: {max_header: 0}\n", "limits.max_header", "more than nothing"},
		{"a size beyond counting", "limits: {max_body: 9999999999999GiB}\n", "limits.max_body", "is not a size"},
		{"a name that is none", "upstream_tls: {server_name: 'a b'}\n", "upstream_tls.server_name", "is not a host name"},
		{"an empty listener", "listen: ''\n", "listen", "is empty"},
		{"a listener on no host", "listen: 'a b:80'\n", "listen", "no host"},
		{"all origins and some", "challenge: {cors: {allowed_origins: ['*', 'https://app.example']}}\n",
			"challenge.cors.allowed_origins[0]", "stands beside"},
		{"a session scope among the elevated", "elevated: {scopes: [wallet:export, user:basic]}\n",
			"elevated.scopes[1]", "session.scopes too"},
		{"a device scope that no session word is", "device: {registered_scope: other}\n",
			"device.registered_scope", "is not one of session.scopes"},
		{"no issuer in the list", "elevated: {issuers: [], audience: a}\n", "elevated.issuers", "is an empty list"},
		{"an issuer of another environment than the fixed one",
			"environment: {fixed: one}\nmfa: {issuers: [{environment: two, issuer: m, audience: a, jwks_file: k.json}]}\n",
			"mfa.issuers[0].environment", "is not the one"},
		{"a fixed environment without a name", "environment: {fixed: ''}\n", "environment.fixed", "is empty"},
		{"settings of no environment", settingsOf("cache_file: ''"), "environment.settings.environments", "neither session.issuers nor"},
		{"settings of a list without members", settingsOf("environments: []"), "environment.settings.environments", "is an empty list"},
		{"settings of an id that is a path", settingsOf("environments: [a/b]"), "environment.settings.environments[0]", "cannot stand in a path"},
		{"settings of an id that is a step up", settingsOf("environments: [..]"), "environment.settings.environments[0]", "cannot stand in a path"},
		{"settings of a fixed id that is no part of a path", "environment: {fixed: 'a b', settings: {url: '/x/{environmentId}'}}\n",
			"environment.settings.environments", "an id of another section"},
		{"a downgrade of another environment", settingsOf("environments: [a], dangerously_allow_downgrade: [b]"),
			"environment.settings.dangerously_allow_downgrade[0]", "is none of"},
		{"settings kept in the ledger", settingsOf("environments: [a], cache_file: x.db") + "ledger: bolt:x.db\n",
			"environment.settings.cache_file", "is the ledger's file"},
		{"polls that last longer than the time between them", settingsOf("environments: [a], every: 1s"),
			"environment.settings.every", "is shorter than"},
		{"settings from nowhere", "environment: {settings: {every: 10s}}\n", "environment.settings.url", "is missing"},
		{"settings of the same environment for all", settingsFrom("/settings"), "environment.settings.url", "once in its path"},
		{"settings with the id in the query", settingsFrom("https://a.example/s?e={environmentId}"), "environment.settings.url", "once in its path"},
		{"settings with the id in the host", settingsFrom("https://{environmentId}.example/s"), "environment.settings.url", "once in its path"},
		{"settings with an escape", settingsFrom("/a%2Fb/{environmentId}"), "environment.settings.url", "once in its path"},
		{"settings over http from afar", settingsFrom("http://a.example/{environmentId}"), "environment.settings.url", "plain http"},
		{"settings by another scheme", settingsFrom("file:///x/{environmentId}"), "environment.settings.url", "is not a URL"},
		{"settings of a host without a scheme", settingsFrom("//a.example/{environmentId}"), "environment.settings.url", "neither http nor https"},
		{"settings on a path that is cleaned away", settingsFrom("/a/../{environmentId}"), "environment.settings.url", "is not a URL"},
		{"settings with a password", settingsFrom("https://u:p@a.example/{environmentId}"), "environment.settings.url", "user name or password"},
		{"a client authority without a certificate", "tls: {client_ca_file: ca.crt}\n", "tls.client_ca_file", "has no effect"},
		{"a door for Envoy without an address", "ext_authz: {reflection: true}\n", "ext_authz", "has no listen"},
		{"a door for proxies without an address", "forward_auth: {tls: {min_version: TLS1.3}}\n", "forward_auth", "has no listen"},
		{"a door at which nobody may ask", "forward_auth: {listen: '127.0.0.1:9192'}\n", "trusted_proxies", "names nobody"},
		{"a socket by a relative path", "ext_authz: {listen: 'unix://run.sock'}\n", "ext_authz.listen", "no absolute path"},
		{"a socket that is a folder", "ext_authz: {listen: 'unix:///run/'}\n", "ext_authz.listen", "no absolute path"},
		{"Envoy at no port", "ext_authz: {listen: localhost}\n", "ext_authz.listen", "is not"},
		{"no questions at once", "ext_authz: {listen: '127.0.0.1:9191', max_streams: 0}\n", "ext_authz.max_streams", "more than nothing"},
		{"more questions than there are", "ext_authz: {listen: '127.0.0.1:9191', max_streams: 2000000}\n", "ext_authz.max_streams", "is not between"},
		{"two doors at one address", "ext_authz: {listen: ':9191'}\nforward_auth: {listen: '127.0.0.1:9191'}\ntrusted_proxies: [127.0.0.1/32]\n",
			"forward_auth.listen", "is the address of ext_authz.listen too"},
		{"two doors at one socket", "ext_authz: {listen: 'unix:///run/s'}\nforward_auth: {listen: 'unix:///run/s'}\n",
			"forward_auth.listen", "is the address of ext_authz.listen too"},
		{"a door at the proxy's address", "ext_authz: {listen: '127.0.0.1:8080'}\n", "ext_authz.listen", "is the address of listen too"},
		{"Envoy's authority without a certificate", "ext_authz: {listen: '127.0.0.1:9191', tls: {client_ca_file: ca.crt}}\n",
			"ext_authz.tls.client_ca_file", "has no effect"},
		{"a certificate without its key", "forward_auth: {listen: 'unix:///run/s', tls: {cert_file: a.crt}}\n", "forward_auth.tls.cert_file", "has no key"},
		{"a token in a header that is ours", "elevated: {header: Stepward-Token}\n", "elevated.header", "is removed from clients"},
		{"a token in a device's header", "elevated: {header: X-Dynamic-Device-Registration-Token}\n", "elevated.header", "is a header of device registration"},
		{"a fact in a device's header", "identity_headers: {subject: x-dynamic-device-nonce}\n", "identity_headers.subject", "is a header of device registration"},
		{"an underscore name that is a device's", "underscore_headers: [x_dynamic_device_nonce]\n", "underscore_headers[0]", "X-Dynamic-Device-Nonce"},
		{"a nonce that is forgotten at once", "device: {nonce_lifetime: 0}\n", "device.nonce_lifetime", "must be more than nothing"},
		{"an environment in a proxy's header", "environment: {header: x-forwarded-env}\n",
			"environment.header", "is removed from clients"},
		{"an identity in place of the session", "session: {header: '', cookie: a}\nidentity_headers: {subject: authorization}\n",
			"identity_headers.subject", "in which the session travels"},
		{"a header name with a dot", "client: {sdk_version_header: x.version}\n", "client.sdk_version_header", "is not a header name"},
		{"an underscore name without one", "underscore_headers: [x-a]\n", "underscore_headers[0]", "with an underscore"},
		{"an underscore name that is the token's", "underscore_headers: [X_MFA_Auth_Token]\n", "underscore_headers[0]", "mfa.header"},
		{"an underscore name that is a length", "underscore_headers: [a_b, content_length]\n",
			"underscore_headers[1]", "Content-Length"},
		{"a protocol of the past", "tls: {min_version: TLS1.1}\n", "tls.min_version", "is not one of the words"},
		{"a long text is shortened", "log: {level: " + long + "}\n", "log.level", `"` + long[:40] + `…" is not`},
		{"a long key is shortened", long + ": 1\n", long[:40] + "…", "is not a key"},
		{"an unknown anchor", "log: *nowhere\n", "", "unknown anchor"},
		{"a broken second document", "---\n[\n", "", "is not YAML"},
		{"a tab for indentation", "log:\n\tlevel: info\n", "", "is not YAML"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			text := minimal + row.text
			if strings.HasPrefix(row.text, "session:") {
				session := "session: {issuer: a, audience: b, jwks_file: k.json, "
				text = "upstream: http://127.0.0.1:9000\n" + strings.Replace(row.text, "session: {", session, 1)
			}
			if strings.HasPrefix(row.text, "upstream:") {
				text = row.text + strings.TrimPrefix(minimal, "upstream: http://127.0.0.1:9000\n")
			}
			p := faultOf(t, text)
			if p.Field != row.field || !strings.Contains(p.Fault, row.fault) || p.Remedy == "" {
				t.Errorf("got %+v, want %s: … %s", p, row.field, row.fault)
			}
		})
	}
}

func TestSizesAreShownInTheirLargestUnit(t *testing.T) {
	for size, want := range map[config.Size]string{
		0: "0", 1: "1", 1536: "1536", 2 * config.KiB: "2KiB", 10 * config.MiB: "10MiB", config.GiB: "1GiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d: got %s, want %s", size, got, want)
		}
	}
}

func TestAddressesThatContend(t *testing.T) {
	rows := []struct {
		name, listen, admin, upstream string
		good                          bool
	}{
		{"different ports", ":8080", ":8081", "http://127.0.0.1:9000", true},
		{"free ports", "127.0.0.1:0", "127.0.0.1:0", "http://127.0.0.1:9000", true},
		{"one port on two addresses", "127.0.0.1:8080", "127.0.0.2:8080", "http://127.0.0.1:9000", true},
		{"one port, one of them everywhere", ":8080", "127.0.0.1:8080", "http://127.0.0.1:9000", false},
		{"another host's same port", ":8080", ":8081", "http://backend:8080", true},
		{"itself as backend", "0.0.0.0:8080", ":8081", "http://127.0.0.1:8080", false},
		{"itself on the default port", "127.0.0.1:80", ":8081", "http://localhost", false},
	}
	for _, row := range rows {
		text := "upstream: " + row.upstream + "\nsession: {issuer: a, audience: b, jwks_file: k.json}\nlisten: \"" + row.listen +
			"\"\nadmin: {listen: \"" + row.admin + "\"}\n"
		if _, err := config.Parse("c.yaml", []byte(text), options()); (err == nil) != row.good {
			t.Errorf("%s: got %v, want good = %v", row.name, err, row.good)
		}
	}
}

func TestAFileNamedLikeAWordStaysAFile(t *testing.T) {
	c, err := config.Parse("stepward.yaml", []byte(minimal+"decision_log: {to: ./stdout}\n"), options())
	if err != nil || c.DecisionLog.To != "./stdout" {
		t.Errorf("got %v, %v", c, err)
	}
}

// --- the example and the schema ---

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("stepward.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("stepward.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(document)
}

func TestTheExampleLoadsAndFitsTheSchema(t *testing.T) {
	const file = "../examples/stepward.yaml"
	c, err := config.Load(file, config.LoadOptions{})
	if err != nil {
		t.Fatalf("the example does not load:\n%v", err)
	}
	if warnings := c.Warnings(); len(warnings) != 0 {
		t.Errorf("the example is warned of: %q", warnings)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, compiled(t), text); err != nil {
		t.Error(err)
	}
}

func TestTheSchemaKnowsKeysAndWords(t *testing.T) {
	s := compiled(t)
	rows := []struct {
		name, text string
		good       bool
	}{
		{"the least file", minimal, true},
		{"variables in place of words and numbers",
			minimal + "client: {undeclared: \"${X}\"}\nlimits: {max_connections: \"${N}\"}\n", true},
		{"an unknown key", minimal + "frobnicate: 1\n", false},
		{"no session", "upstream: http://127.0.0.1:9000\n", false},
		{"an unknown word", minimal + "log: {level: loud}\n", false},
		{"an unknown algorithm", minimal + "elevated: {algorithms: [none]}\n", false},
		{"a duration without a unit", minimal + "leeway: 10\n", false},
		{"an unknown key of an issuer", minimal + "mfa: {issuers: [{env: a}]}\n", false},
	}
	for _, row := range rows {
		if err := validate(t, s, []byte(row.text)); (err == nil) != row.good {
			t.Errorf("%s: got %v, want good = %v", row.name, err, row.good)
		}
	}
}

// --- fuzz ---

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "../examples/stepward.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(minimal))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("f.yaml", text, options())
		if (c == nil) != (err != nil) {
			t.Fatalf("config %v with error %v", c, err)
		}
		if err == nil {
			_, _, _, _, _ = c.Warnings(), c.SessionIssuers(), c.ElevatedIssuers(), c.MFAIssuers(), c.SettingsEnvironments()
			_, _ = c.SettingsURL()
			return
		}
		var problems config.Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("not a list of problems: %v", err)
		}
		lines := bytes.Count(text, []byte("\n")) + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Fault == "" {
				t.Errorf("a problem outside of the file: %+v", p)
			}
			if strings.ContainsAny(p.Error(), "\n\r") {
				t.Errorf("a problem of more than one line: %q", p.Error())
			}
		}
		if strings.Contains(err.Error(), secret) && !bytes.Contains(text, []byte(secret)) {
			t.Errorf("the secret is shown: %v", err)
		}
	})
}

func TestSessionCheck(t *testing.T) {
	session := "session: {issuer: a, audience: b, jwks_file: k.json, check: {%s}}\nupstream: http://127.0.0.1:9000\n"
	for _, check := range []string{"path: /session", "path: '/api/v0/sdk/{environmentId}/session', cache: 0, timeout: 1s"} {
		if _, err := config.Parse("a.yaml", fmt.Appendf(nil, session, check), options()); err != nil {
			t.Errorf("%s: %v", check, err)
		}
	}
	for check, want := range map[string]string{
		"path: session": "is not a path", "path: 'https://evil.example/session'": "is not a path", "path: '//evil.example/session'": "is not a path",
		"path: '/a/../session'": "is not a path", "path: '/{environment}/session'": "is not a path", "path: '/x{environmentId}'": "is not a path",
		"path: '/a?x={environmentId}'": "is not a path", "path: '/a%2Fb'": "is not a path", "path: '/a#b'": "is not a path", "path: '@evil.example/'": "is not a path",
		"path: ''": "is empty", "path: /": "is not a path", "cache: 1s": "has no effect without session.check.path", "timeout: 1s": "has no effect without session.check.path",
		"path: /session, timeout: 0": "must be more than nothing", "url: 'https://a.example'": "is not a key",
	} {
		if _, err := config.Parse("a.yaml", fmt.Appendf(nil, session, check), options()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a problem that says %q", check, err, want)
		}
	}
}
