package framing_test

import (
	"bufio"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/canon"
	"github.com/stepward/stepward/internal/framing"
)

func config() framing.Config {
	return framing.Config{
		Tokens:          []string{"Authorization", "x-dyn-elevated-access-token", "x-mfa-auth-token", ""},
		Sensitive:       []string{"x-dyn-api-version", "x-dyn-version", ""},
		Identity:        []string{"Stepward-Subject", "x-user-id", ""},
		AllowUnderscore: []string{"x_request_tag"},
	}
}

func newRules(t testing.TB) *framing.Rules {
	t.Helper()
	rules, err := framing.New(config())
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// request is read as net/http's server reads it.
func request(t testing.TB, fields string) *http.Request {
	t.Helper()
	raw := "POST /a HTTP/1.1\r\nHost: app.example\r\n" + strings.ReplaceAll(fields, "\n", "\r\n") + "\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheck(t *testing.T) {
	for _, row := range []struct {
		name   string
		fields string
		want   error
	}{
		{"an ordinary request", "Authorization: Bearer a\nX-Dyn-Elevated-Access-Token: b\nAccept: a\nAccept: b", nil},
		{"two sessions", "Authorization: Bearer a\nAuthorization: Bearer b", framing.ErrRepeated},
		{"two sessions, cases differ", "authorization: Bearer a\nAUTHORIZATION: Bearer b", framing.ErrRepeated},
		{"the same session twice", "Authorization: Bearer a\nAuthorization: Bearer a", framing.ErrRepeated},
		{"two elevated tokens", "X-Dyn-Elevated-Access-Token: a\nx-dyn-elevated-access-token: b", framing.ErrRepeated},
		{"two MFA tokens", "X-Mfa-Auth-Token: a\nX-Mfa-Auth-Token: b", framing.ErrRepeated},
		{"two versions", "X-Dyn-Version: a\nX-Dyn-Version: b", framing.ErrRepeated},
		{"two cookie fields", "Cookie: a=1\nCookie: a=2", framing.ErrRepeated},
		{"two origins", "Origin: https://a\nOrigin: https://b", framing.ErrRepeated},
		{"two upgrades", "Upgrade: websocket\nUpgrade: h2c", framing.ErrRepeated},
		{"an elevated token with underscores", "X_Dyn_Elevated_Access_Token: a", framing.ErrTwin},
		{"an elevated token with one underscore", "X-Dyn-Elevated_Access-Token: a", framing.ErrTwin},
		{"an elevated token with dots, which PHP reads as underscores", "X.Dyn.Elevated.Access.Token: a", framing.ErrTwin},
		{"a version beside its twin", "X-Dyn-Version: a\nX_DYN_VERSION: b", framing.ErrTwin},
		{"a second transfer coding", "Transfer_Encoding: chunked", framing.ErrTwin},
		{"a second length", "Content-Length: 0\nContent_Length: 5", framing.ErrTwin},
		{"an underscore name without a meaning", "X_Whatever: a", nil},
		{"an identity field: removed, not refused", "Stepward_Subject: a\nStepward-Subject: b", nil},
		{"connection options", "Connection: close, Keep-Alive,TE , Upgrade,, trailer\nConnection: HTTP2-Settings", nil},
		{"connection names the elevated token", "Connection: close, X-Dyn-Elevated-Access-Token", framing.ErrConnection},
		{"connection names the session", "Connection: authorization", framing.ErrConnection},
		{"connection names it in a second field", "Connection: close\nConnection: X-Mfa-Auth-Token", framing.ErrConnection},
		{"connection names any other field", "Connection: X-Anything", framing.ErrConnection},
		{"connection with a quoted list", `Connection: "close"`, framing.ErrConnection},
		{"an ordinary trailer", "Transfer-Encoding: chunked\nTrailer: X-Checksum", nil},
		{"a trailer with a token", "Transfer-Encoding: chunked\nTrailer: X-Dyn-Elevated-Access-Token", framing.ErrTrailer},
		{"a trailer with a twin", "Transfer-Encoding: chunked\nTrailer: X_Dyn_Version", framing.ErrTrailer},
		{"a trailer with an identity", "Transfer-Encoding: chunked\nTrailer: Stepward-Subject", framing.ErrTrailer},
		{"a trailer with a claim about the client", "Transfer-Encoding: chunked\nTrailer: X-Forwarded-For", framing.ErrTrailer},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := request(t, row.fields)
			if got := newRules(t).Check(r.Header, r.Trailer); !errors.Is(got, row.want) {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestCheckQuery(t *testing.T) {
	for _, row := range []struct {
		query string
		want  error
	}{
		{"", nil},
		{"a=1&b=2", nil},
		{"next=access_token", nil},
		{"access_tokens=1&xaccess_token=1", nil},
		{"access_token=a", framing.ErrQuery},
		{"a=1&access_token=a", framing.ErrQuery},
		{"access_token", framing.ErrQuery},
		{"ACCESS-TOKEN=a", framing.ErrQuery},
		{"acces%73%5ftoken=a", framing.ErrQuery},
		{"access_token%5B%5D=a", framing.ErrQuery},
		{"access_token%5b0%5d=a", framing.ErrQuery},
		{"+access_token=a", framing.ErrQuery},
		{"%20access_token=a", framing.ErrQuery},
		{"access+token=a", framing.ErrQuery}, // PHP
		{"x-dyn-elevated-access-token=a", framing.ErrQuery},
		{"x_mfa_auth_token=a", framing.ErrQuery},
		{"&&authorization=a", framing.ErrQuery},
		{"_method=DELETE", framing.ErrQuery},
		{"a=1&%5Fmethod=DELETE", framing.ErrQuery},
		{"X-HTTP-Method-Override=DELETE", framing.ErrQuery},
		{"method=a&the_method=b", nil},
	} {
		if got := newRules(t).CheckQuery(row.query); !errors.Is(got, row.want) {
			t.Errorf("%q: got %v, want %v", row.query, got, row.want)
		}
	}
}

func TestWithheldIsWhatStripRemoves(t *testing.T) {
	r := newRules(t)
	all := r.Withheld(false)
	for _, trusted := range []bool{false, true} {
		header := http.Header{}
		for _, name := range all {
			header[name] = []string{"x"}
		}
		r.Strip(header, trusted)
		for _, name := range all {
			if _, left := header[name]; left == slices.Contains(r.Withheld(trusted), name) {
				t.Errorf("%s, trusted %t: left %t", name, trusted, left)
			}
		}
	}
	if !slices.Contains(all, "X-Real-Ip") || slices.Contains(r.Withheld(true), "X-Real-Ip") || !slices.Contains(r.Withheld(true), "Proxy") {
		t.Errorf("%q", all)
	}
}

func TestStrip(t *testing.T) {
	for _, row := range []struct {
		name    string
		fields  string
		trusted bool
		want    []string
	}{
		{"ordinary fields stay", "Accept: a\nX-Anything: b\nAuthorization: c\nCookie: d\nX-Dyn-Version: e", false,
			[]string{"Accept", "Authorization", "Cookie", "X-Anything", "X-Dyn-Version"}},
		{"what the proxy itself handles stays", "Connection: upgrade\nUpgrade: websocket\nTe: trailers", false,
			[]string{"Connection", "Te", "Upgrade"}},
		{"client copies of identity", "Stepward-Subject: a\nX-User-Id: b\nx.user.id: c", true, nil},
		{"everything under our name", "Stepward-Anything: a\nstepward-scopes: b\nStepward.Scopes: c", true, nil},
		{"underscores", "X_User_Id: a\nX_Whatever: b", true, nil},
		{"an allowed underscore", "X_Request_Tag: a", false, []string{"X_request_tag"}},
		{"claims about the client", "Forwarded: for=a\nX-Forwarded-For: b\nX-Forwarded-Any: c\nX-Real-Ip: d\nCf-Connecting-Ip: e",
			false, nil},
		{"claims by a trusted proxy", "Forwarded: for=a\nX-Forwarded-For: b\nX-Real-Ip: d", true,
			[]string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"}},
		{"twins of claims, even by a trusted proxy", "X.Forwarded.For: a\nX.Real.Ip: b", true, nil},
		{"overrides of the method",
			"X-Http-Method-Override: DELETE\nX-HTTP-Method: a\nX-Method-Override: b\nX-Forwarded-Method: c", true, nil},
		{"overrides of the path",
			"X-Original-Url: /admin\nX-Rewrite-Url: /admin\nX-Forwarded-Uri: a\nX-Original-Uri: b", true, nil},
		{"httpoxy", "Proxy: http://evil", true, nil},
		{"hop by hop", "Keep-Alive: a\nProxy-Connection: b\nProxy-Authorization: c\nHTTP2-Settings: d", true, nil},
		{"twins of what a decision depends on", "X.Dyn.Version: a\nTransfer.Encoding: chunked\nAuthorization~: b", true,
			[]string{"Authorization~"}}, // one character more is another name
	} {
		t.Run(row.name, func(t *testing.T) {
			header := request(t, row.fields).Header
			newRules(t).Strip(header, row.trusted)
			if got := slices.Sorted(maps.Keys(header)); !slices.Equal(got, row.want) {
				t.Errorf("left %q, want %q", got, row.want)
			}
		})
	}
}

// Fields that Strip removes are refused in any spelling but the exact one, which an asking proxy can be told to remove.
func TestCheckTwins(t *testing.T) {
	for fields, want := range map[string]error{
		"X-User-Id: a\nStepward-Subject: b\nX-Original-Url: c\nX-Forwarded-For: d": nil,
		"X_Whatever: a\nX.Anything: b":                                             nil,
		"X_User_Id: a":                                                             framing.ErrTwin,
		"x.user-id: a":                                                             framing.ErrTwin,
		"Stepward_Anything: a":                                                     framing.ErrTwin,
		"X_Original_Url: a":                                                        framing.ErrTwin,
		"X_Forwarded_For: a":                                                       framing.ErrTwin,
		"X-Http_Method-Override: a":                                                framing.ErrTwin,
	} {
		if err := newRules(t).CheckTwins(request(t, fields).Header); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", fields, err, want)
		}
	}
}

func TestNewRefusesContradictions(t *testing.T) {
	for _, row := range []struct {
		name   string
		change framing.Config // its fields replace those of config
		want   string
	}{
		{"an exception for a twin of a token", framing.Config{AllowUnderscore: []string{"x_mfa_auth_token"}}, "X-Mfa-Auth-Token"},
		{"an exception for a twin of an identity", framing.Config{AllowUnderscore: []string{"X_User-Id"}}, "X-User-Id"},
		{"an exception for a twin of ours", framing.Config{AllowUnderscore: []string{"stepward_x"}}, "Stepward-X"},
		{"an exception for a twin of a claim", framing.Config{AllowUnderscore: []string{"x_forwarded_for"}}, "X-Forwarded-For"},
		{"an exception for a twin of a length", framing.Config{AllowUnderscore: []string{"content_length"}}, "Content-Length"},
		{"an exception without an underscore", framing.Config{AllowUnderscore: []string{"x-a"}}, "x-a"},
		{"an exception that is no header name", framing.Config{AllowUnderscore: []string{"x_a b"}}, "x_a b"},
		{"an identity that is a token", framing.Config{Identity: []string{"authorization"}}, "Authorization"},
		{"a token that is a claim about the client", framing.Config{Tokens: []string{"X-Forwarded-Token"}}, "X-Forwarded-Token"},
		{"a version that is ours", framing.Config{Sensitive: []string{"stepward-version"}}, "Stepward-Version"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := config()
			if row.change.Tokens != nil {
				c.Tokens = row.change.Tokens
			}
			if row.change.Sensitive != nil {
				c.Sensitive = row.change.Sensitive
			}
			if row.change.Identity != nil {
				c.Identity = row.change.Identity
			}
			if row.change.AllowUnderscore != nil {
				c.AllowUnderscore = row.change.AllowUnderscore
			}
			rules, err := framing.New(c)
			if err == nil || rules != nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error that names %q", err, row.want)
			}
		})
	}
}

// ordinary is what a browser sends.
const ordinary = "Authorization: Bearer a\nX-Dyn-Elevated-Access-Token: b\nAccept: a\nConnection: keep-alive\n" +
	"X-Request-Id: c\nUser-Agent: d\nAccept-Encoding: e\nAccept-Language: f\nCache-Control: g\nContent-Type: h\nOrigin: i\n" +
	"Referer: j\nSec-Ch-Ua: k\nSec-Ch-Ua-Mobile: l\nSec-Ch-Ua-Platform: m\nSec-Fetch-Dest: n\nSec-Fetch-Mode: o\n" +
	"Sec-Fetch-Site: p\nX-Dyn-Version: q\nX-Dyn-Api-Version: r"

func TestOrdinaryRequestsAllocateNothing(t *testing.T) {
	rules := newRules(t)
	r := request(t, ordinary)
	got := testing.AllocsPerRun(100, func() {
		if err := rules.Check(r.Header, nil); err != nil {
			t.Fatal(err)
		}
		if err := rules.CheckQuery("a=1&environment=b&limit=10"); err != nil {
			t.Fatal(err)
		}
		rules.Strip(r.Header, false)
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkRules(b *testing.B) {
	rules := newRules(b)
	r := request(b, ordinary)
	b.ReportAllocs()
	for b.Loop() {
		_ = rules.Check(r.Header, nil)
		_ = rules.CheckQuery("a=1&environment=b&limit=10")
		rules.Strip(r.Header, false)
	}
}

// likeCGI names a field as CGI, WSGI and Rack do, with PHP's and Apache's worst habits added.
func likeCGI(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			return c
		}
		return '_'
	}, name)
}

func FuzzStripLeavesNoTwins(f *testing.F) {
	for _, name := range []string{
		"X_User_Id", "x.user.id", "STEPWARD-subject", "X~Dyn-Version", "x-forwarded-for", "Content_Length", "\xff-a", "",
	} {
		f.Add(name, "X-Dyn-Version", "close", true)
		f.Add("Accept", name, name, false)
	}
	rules := newRules(f)
	read := []string{"Authorization", "X-Dyn-Elevated-Access-Token", "X-Mfa-Auth-Token", "X-Dyn-Api-Version", "X-Dyn-Version",
		"Content-Length", "Transfer-Encoding", "Cookie"}
	f.Fuzz(func(t *testing.T, a, b, connection string, trusted bool) {
		header := http.Header{a: {"1"}, b: {"2"}, "Connection": {connection}}
		header.Add("X-Dyn-Version", "3")
		accepted := rules.Check(header, http.Header{b: nil}) == nil
		rules.Strip(header, trusted)
		for name := range header {
			env := likeCGI(name)
			for _, protected := range read {
				if env == likeCGI(protected) && name != protected {
					t.Errorf("%q stands for %s", name, protected)
				}
			}
			if env == "X_USER_ID" || strings.HasPrefix(env, "STEPWARD_") {
				t.Errorf("%q speaks for us", name)
			}
			if !trusted && (strings.HasPrefix(env, "X_FORWARDED_") || env == "FORWARDED") {
				t.Errorf("%q is a claim about the client", name)
			}
		}
		if accepted {
			for option := range strings.SplitSeq(connection, ",") {
				if strings.Contains(likeCGI(option), "DYN_VERSION") {
					t.Errorf("connection names %q", option)
				}
			}
		}
	})
}

func FuzzCheckQuery(f *testing.F) {
	f.Add("access_token=1")
	f.Add("a=1&%61ccess_token%5b%5d=2")
	rules := newRules(f)
	f.Fuzz(func(t *testing.T, query string) {
		err := rules.CheckQuery(query)
		target, parseErr := canon.ParseTarget("/?" + query)
		if err != nil || parseErr != nil {
			return
		}
		values, parseErr := url.ParseQuery(target.RawQuery)
		if parseErr != nil {
			t.Fatalf("%q: canon took what net/url does not: %v", query, parseErr)
		}
		for name := range values {
			if env := likeCGI(name); env == "ACCESS_TOKEN" || env == "X_MFA_AUTH_TOKEN" {
				t.Errorf("%q passed with the parameter %q", query, name)
			}
		}
	})
}
