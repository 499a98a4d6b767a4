package issuer

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// In cookie mode a session is a cookie that no script can read, and no answer carries it (models/VerifyResponse.js of
// sdk-api-core). A device is known by a cookie of its own instead of a key; what the service calls that one is not documented.
const (
	storageCookie = "cookie"
	sessionCookie = "DYNAMIC_JWT_TOKEN"
	deviceCookie  = "EXAMPLE_DEVICE"

	deviceCookieLifetime = 365 * 24 * time.Hour
)

func (i *Issuer) keepsCookies() bool { return slices.Contains(i.cfg.Storage, storageCookie) }

// cookie is one for the whole host that comes with requests of its own site's pages only; no lifetime forgets it.
func (i *Issuer) cookie(name, value string, lifetime time.Duration) *http.Cookie {
	age := int(lifetime.Seconds())
	if age <= 0 {
		age = -1
	}
	return &http.Cookie{ //nolint:gosec // secure wherever the page is
		Name: name, Value: value, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(i.cfg.Audience, "https://"),
	}
}

// withCookies is an answer that sets some.
type withCookies interface{ setCookies() []*http.Cookie }

// farewell is the empty answer that ends a session.
type farewell []*http.Cookie

func (f farewell) setCookies() []*http.Cookie { return f }

func (i *Issuer) farewell() any {
	if !i.keepsCookies() {
		return nil
	}
	return farewell{i.cookie(sessionCookie, "", 0)}
}

// deviceByCookie names the device that a request's cookie is for, and "" for a request without.
func deviceByCookie(r *http.Request) string {
	c, err := r.Cookie(deviceCookie)
	if err != nil || c.Value == "" {
		return ""
	}
	return hash(c.Value)
}

// guard keeps pages of other sites from using the cookies: those that SameSite lets through, and pages of the same site that are
// none of ours.
func (i *Issuer) guard(h http.Handler) (http.Handler, error) {
	if !i.keepsCookies() {
		return h, nil
	}
	protection := http.NewCrossOriginProtection()
	for _, origin := range i.cfg.Origins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	protection.SetDenyHandler(i.serve(func(*http.Request) (any, error) {
		return nil, fail(http.StatusForbidden, "forbidden", "A page of another origin asks")
	}))
	return protection.Handler(h), nil
}
