package proxy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stepward/stepward/proxy"
)

// In cookie mode the backend knows a device by a cookie whose name Dynamic does not document: every cookie but the session's
// passes as it is spelled, in both directions, whoever the session belongs to.
func TestADevicesCookiePasses(t *testing.T) {
	const device = `__Host-dyn.device=a=b%20"c"/+==`
	set := []string{
		`__Host-dyn.device=a=b%20"c"/+==; Path=/; Secure; HttpOnly; SameSite=None; Partitioned; Max-Age=31536000`, "SESSION=session-2; Path=/; HttpOnly", "odd; a",
	}
	var cookies, token string
	backend := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookies, token = strings.Join(r.Header["Cookie"], " | "), r.Header.Get("X-Dynamic-Device-Registration-Token")
		w.Header()["Set-Cookie"] = set
		w.WriteHeader(http.StatusOK)
	})
	for _, c := range []struct {
		name, path, sent string
		forward          bool
		want             string
	}{
		{"with the session", "/read", device + "; SESSION=session-1; last=1", true, device + "; SESSION=session-1; last=1"},
		{"without it, where the backend is not to have it", "/read", device + "; SESSION=session-1; last=1", false, device + "; last=1"},
		{"alone, on the way to a session", "/open", device, false, device},
		{"beside a session that is no good", "/open", "SESSION=forged; " + device, false, device},
		{"twice", "/open", "d=1; d=2", false, "d=1; d=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSetup(t, backend, option{proxy: func(p *proxy.Config) { p.Credentials.ForwardSession = c.forward }})
			r, err := http.NewRequest(http.MethodPost, s.front.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header["Cookie"] = []string{c.sent}
			r.Header.Set("X-Dynamic-Device-Registration-Token", "t")
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || cookies != c.want || token != "t" {
				t.Errorf("%s, the backend got Cookie %q and token %q; want %q", res.Status, cookies, token, c.want)
			}
			if got := res.Header["Set-Cookie"]; !slices.Equal(got, set) {
				t.Errorf("the client got Set-Cookie %q, want %q", got, set)
			}
		})
	}
}

func TestAPreflightCarriesNoTokenOfALink(t *testing.T) {
	e := new(echo)
	s := newSetup(t, e, option{})
	s.do("OPTIONS", "/open", nil, "Origin", "https://app.example", "Access-Control-Request-Method", "POST",
		"X-Dynamic-Device-Registration-Token", "t-1", "X-Dynamic-Device-Token-Registration", "t-1")
	if got := e.last(t); strings.Contains(got, "t-1") {
		t.Errorf("the backend got\n%s", got)
	}
}
