package issuer_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/issuer"
)

const (
	page       = "http://localhost:3000"
	sessionJar = "DYNAMIC_JWT_TOKEN"
)

// jar is a browser's cookies.
type jar map[string]string

func (j jar) keep(t *testing.T, a answer) answer {
	t.Helper()
	for _, c := range a.Cookies {
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("cookie %s", c)
		}
		if c.MaxAge < 0 {
			delete(j, c.Name)
		} else {
			j[c.Name] = c.Value
		}
	}
	if a.JWT != "" || a.MinifiedJWT != "" {
		t.Error("an answer carries the session")
	}
	return a
}

func (j jar) send(h http.Header) {
	var pairs []string
	for name, value := range j {
		pairs = append(pairs, name+"="+value)
	}
	h.Set("Cookie", strings.Join(pairs, "; "))
}

func inCookies(t *testing.T) *world {
	t.Helper()
	return newWorld(t, func(c *issuer.Config) { c.Storage, c.Audience = []string{"cookie"}, page })
}

func TestACookieIsTheSession(t *testing.T) {
	w, ann := inCookies(t), jar{}
	if s := w.do("GET", "/settings", nil).Security; !s.DeviceRegistrationRequired || s.Auth.Storage[0] != "cookie" {
		t.Errorf("settings: got %+v", s)
	}
	first := ann.keep(t, w.signIn("ann@example.com", ann.send))
	if first.User.Scope != "user:basic" || len(ann) != 2 {
		t.Fatalf("signed in with scope %q, cookies %v", first.User.Scope, ann)
	}
	before := ann[sessionJar]
	proof := w.proof("ann@example.com")
	proof["requestedScopes"] = []string{"wallet:export"}
	elevated := ann.keep(t, w.do("POST", "/emailVerifications/verify", proof, ann.send))
	if elevated.ElevatedAccessToken == "" || ann[sessionJar] == before {
		t.Errorf("step-up: %d %s, elevated %q, same session %v", elevated.Status, elevated.Code, elevated.ElevatedAccessToken, ann[sessionJar] == before)
	}
	if a := ann.keep(t, w.do("POST", "/refresh", nil, ann.send)); a.Status != 200 {
		t.Errorf("refresh: %d %s", a.Status, a.Code)
	}
	stolen := jar{sessionJar: ann[sessionJar]}
	if a := ann.keep(t, w.do("POST", "/revoke", nil, ann.send)); a.Status != 204 || ann[sessionJar] != "" {
		t.Errorf("sign out: %d, cookies %v", a.Status, ann)
	}
	refuse(t, w.do("GET", "/users", nil, stolen.send), 401, "unauthorized")
}

func TestACookieIsTheDevice(t *testing.T) {
	w, phone, laptop, other := inCookies(t), jar{}, jar{}, jar{}
	phone.keep(t, w.signIn("ann@example.com", phone.send))
	if a := phone.keep(t, w.signIn("ann@example.com", phone.send)); a.User.Scope != "user:basic" {
		t.Errorf("the known device: scope %q", a.User.Scope)
	}
	if a := laptop.keep(t, w.signIn("ann@example.com", laptop.send)); a.User.Scope != "device:register" {
		t.Fatalf("another device: scope %q", a.User.Scope)
	}
	mail, _ := w.issuer.Mail("ann@example.com")
	other[sessionJar] = laptop[sessionJar] // stolen without the device's cookie
	refuse(t, w.do("POST", "/deviceRegistration", nil, other.send, header(tokenHeader, mail.Token)), 403, "invalid_device_registration_token")
	if a := laptop.keep(t, w.do("POST", "/deviceRegistration", nil, laptop.send, header(tokenHeader, mail.Token))); a.User.Scope != "user:basic" {
		t.Errorf("register: %d %s, scope %q", a.Status, a.Code, a.User.Scope)
	}
	if list := w.do("GET", "/deviceRegistrations", nil, laptop.send); list.Count != 2 {
		t.Errorf("devices: got %d %s, %d", list.Status, list.Code, list.Count)
	}
}

func TestPagesOfOthersCannotUseTheCookies(t *testing.T) {
	w, ann := inCookies(t), jar{}
	ann.keep(t, w.signIn("ann@example.com", ann.send))
	for origin, want := range map[string]int{page: 200, "http://localhost:3001": 403, "https://evil.example": 403} {
		a := w.do("PUT", "/users", m{"alias": "x"}, ann.send, func(h http.Header) {
			h.Set("Origin", origin)
			h.Set("Sec-Fetch-Site", "same-site")
		})
		if a.Status != want {
			t.Errorf("%s: got %d %s, want %d", origin, a.Status, a.Code, want)
		}
	}
	if _, err := issuer.New(issuer.Config{Dir: t.TempDir(), Environment: environment, Audience: "no origin", Storage: []string{"cookie"}}); err == nil {
		t.Error("an audience that is no origin is accepted")
	}
}
