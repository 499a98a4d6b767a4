package door_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/door"
	"github.com/stepward/stepward/internal/framing"
	"github.com/stepward/stepward/internal/reason"
)

func TestWithhold(t *testing.T) {
	all := func() http.Header {
		return http.Header{
			"Authorization": {"Bearer s"}, "X-Elevated": {"e"}, "X-Mfa": {"m"}, "Cookie": {"a=1; SESSION=s; b = 2", "SESSION=t"}, "Accept": {"*/*"},
		}
	}
	named := door.Credentials{SessionHeader: "authorization", SessionCookie: "SESSION", ElevatedHeader: "x-elevated", MFAHeader: "x-mfa"}
	with := func(edit func(*door.Credentials)) door.Credentials {
		c := named
		edit(&c)
		return c
	}
	rows := []struct {
		name      string
		c         door.Credentials
		preflight bool
		want      string
	}{
		{"nothing is forwarded", named, false, "Accept, Cookie: a=1; b = 2"},
		{"the session", with(func(c *door.Credentials) { c.ForwardSession = true }), false, "Accept, Authorization, Cookie: a=1; SESSION=s; b = 2|SESSION=t"},
		{"all of it", with(func(c *door.Credentials) { c.ForwardSession, c.ForwardElevated, c.ForwardMFA = true, true, true }), false,
			"Accept, Authorization, Cookie: a=1; SESSION=s; b = 2|SESSION=t, X-Elevated, X-Mfa"},
		{"nothing in a preflight", with(func(c *door.Credentials) { c.ForwardSession, c.ForwardElevated, c.ForwardMFA = true, true, true }), true, "Accept"},
		{"a session in a header alone", with(func(c *door.Credentials) { c.SessionCookie = "" }), false, "Accept, Cookie: a=1; SESSION=s; b = 2|SESSION=t"},
		{"a session in a cookie alone", with(func(c *door.Credentials) { c.SessionHeader = "" }), false, "Accept, Authorization, Cookie: a=1; b = 2"},
	}
	for _, row := range rows {
		h, c := all(), row.c.Canonical()
		c.Withhold(h, row.preflight)
		var got []string
		for _, name := range []string{"Accept", "Authorization", "Cookie", "X-Elevated", "X-Mfa"} {
			switch values, ok := h[name]; {
			case ok && name == "Cookie":
				got = append(got, name+": "+strings.Join(values, "|"))
			case ok:
				got = append(got, name)
			}
		}
		if s := strings.Join(got, ", "); s != row.want {
			t.Errorf("%s: the backend gets %s, want %s", row.name, s, row.want)
		}
	}
	h := http.Header{"Cookie": {"SESSION=s"}}
	c := named.Canonical()
	if c.Withhold(h, false); len(h) != 0 {
		t.Errorf("an empty cookie header is left: %v", h)
	}
}

func TestTell(t *testing.T) {
	identity := door.Identity{Subject: "x-subject", Scopes: "x-scopes", DecisionID: "x-decision", Environment: "x-environment"}.Canonical()
	tell := func(i door.Identity, v *gate.Verdict) map[string]string {
		told := map[string]string{}
		i.Tell(v, func(name, value string) { told[name] = value })
		return told
	}
	v := &gate.Verdict{Subject: "ann\r\nX: y", Scopes: []string{"a", "b"}, DecisionID: "d", Environment: "e", EnvironmentProven: true}
	got := tell(identity, v)
	want := map[string]string{"X-Subject": "ann%0D%0AX:%20y", "X-Scopes": "a b", "X-Decision": "d", "X-Environment": "e"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	v.EnvironmentProven = false // a client's own word on it is no fact
	if _, told := tell(identity, v)["X-Environment"]; told {
		t.Error("an environment that nobody proved is told")
	}
	if got := tell(door.Identity{}, v); len(got) != 0 {
		t.Errorf("told without a name: %v", got)
	}
	if got := tell(identity, &gate.Verdict{}); len(got) != 0 {
		t.Errorf("told without a fact: %v", got)
	}
	if names := identity.Names(); strings.Join(names, " ") != "X-Subject X-Scopes X-Decision X-Environment" {
		t.Errorf("got names %v", names)
	}
}

func TestFieldValuesCanBeUndone(t *testing.T) {
	for _, s := range []string{"ann", "ann@example.com", "a b", " a", "a ", "100%", "ä", "\x00", "a\nb", "%41"} {
		v := door.FieldValue(s)
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is told as %q", s, v)
		}
		var back strings.Builder
		for i := 0; i < len(v); i++ {
			c := v[i]
			if c == '%' {
				if _, err := fmt.Sscanf(v[i+1:i+3], "%02X", &c); err != nil {
					t.Fatal(err)
				}
				i += 2
			}
			back.WriteByte(c)
		}
		if back.String() != s {
			t.Errorf("%q is told as %q, which says %q", s, v, back.String())
		}
	}
}

func TestPeers(t *testing.T) {
	peers := door.Peers{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for address, want := range map[string]bool{
		"10.1.2.3:80": true, "[::ffff:10.1.2.3]:80": true, "11.0.0.1:80": false, "[fd00::1]:80": true, "[fe80::1]:80": false, "10.1.2.3": false, "@": false, "": false,
	} {
		if got := peers.Trust(address); got != want {
			t.Errorf("%q: got %v", address, got)
		}
	}
	if (door.Peers)(nil).Trust("127.0.0.1:80") {
		t.Error("somebody is trusted by nobody's word")
	}
}

func TestRequestID(t *testing.T) {
	const good = "0123-abcd.EF_"
	for name, row := range map[string]struct {
		values  []string
		trusted bool
		want    string
	}{
		"a trusted one": {[]string{good}, true, good}, "a client's": {[]string{good}, false, ""}, "two": {[]string{good, good}, true, ""}, "none": {nil, true, ""},
		"short": {[]string{"1234567"}, true, ""}, "long": {[]string{strings.Repeat("a", 129)}, true, ""}, "another alphabet": {[]string{"01234567\n"}, true, ""},
	} {
		if got := door.RequestID(http.Header{"X-Request-Id": row.values}, row.trusted); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

func TestWhatCannotBeJudgedHasAName(t *testing.T) {
	for err, want := range map[error]reason.Reason{
		framing.ErrRepeated: reason.InvalidRequest, framing.ErrQuery: reason.InvalidRequest, framing.ErrTwin: reason.AmbiguousRequest,
		framing.ErrConnection: reason.AmbiguousRequest, framing.ErrTrailer: reason.AmbiguousRequest, fmt.Errorf("new"): reason.AmbiguousRequest,
	} {
		if got := door.FramingReason(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
	if got := door.SafeMethod("GET"); got != "GET" {
		t.Errorf("got %q", got)
	}
	if got := door.SafeMethod("<script>"); got != "other" {
		t.Errorf("got %q", got)
	}
}
