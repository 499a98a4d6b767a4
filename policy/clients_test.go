package policy_test

import (
	"testing"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/policy"
)

// The shipped policy only advises, and nothing where there is no step-up.
func TestTheShippedMinimumsAreAdvice(t *testing.T) {
	s := load(t, withEnvironments(t, `environments:
  default: {minimum_api_version: "2026_04_01", minimum_sdk: {WalletKit: "4.76.0"}, sdk_minimums: advise}
  old: {minimum_api_version: "2026_01_01"}
  strict: {sdk_minimums: enforce}`))
	for environment, want := range map[string]struct{ advised, enforced apiversion.Release }{
		"unheard of": {"4.76.0", ""}, "old": {"", ""}, "strict": {"", "4.76.0"},
	} {
		q := asked(t, s, environment, "GET", "/api/v0/sdk/e/users")
		if q.AdviseSDK["WalletKit"] != want.advised || q.MinimumSDK["WalletKit"] != want.enforced {
			t.Errorf("%s: advised %v, enforced %v", environment, q.AdviseSDK, q.MinimumSDK)
		}
	}
	shipped := load(t, shippedFiles(t))
	q := asked(t, shipped, "e", "GET", "/api/v0/sdk/e/users")
	if q.AdviseSDK["WalletKit"] != "4.76.0" || q.AdviseSDK["ClientSDK"] != "0.24.1" || len(q.MinimumSDK) > 0 {
		t.Errorf("shipped: advised %v, enforced %v", q.AdviseSDK, q.MinimumSDK)
	}
}

func TestAnAnnouncementIsRead(t *testing.T) {
	s := load(t, withEnvironments(t, `environments:
  default: {minimum_api_version: "2026_01_01", mfa_actions: [], step_up: {}}
  e: {announced: {minimum_api_version: 2026-04-01, deprecation: 2026-12-01, sunset: "2027-02-01T10:00:00+01:00", link: "https://docs.example/2026"}}`))
	want := policy.Announcement{
		Version: "2026_04_01", Deprecation: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Sunset: time.Date(2027, 2, 1, 9, 0, 0, 0, time.UTC),
		Link: "https://docs.example/2026",
	}
	if a := asked(t, s, "e", "POST", "/api/v0/sdk/e/waas/w/privateKey/export").Announced; a == nil || *a != want {
		t.Errorf("export: got %+v", a)
	}
	for environment, path := range map[string]string{"e": "/api/v0/sdk/e/users", "another": "/api/v0/sdk/e/waas/w/privateKey/export"} {
		method := map[string]string{"e": "GET", "another": "POST"}[environment]
		if a := asked(t, s, environment, method, path).Announced; a != nil {
			t.Errorf("%s %s: %+v is announced", environment, path, a)
		}
	}
}

func TestKnownGapsBelongToTheirSDKAndRoute(t *testing.T) {
	s := load(t, files(anyRule, `routes: {GET /a: {operation: a}, GET /b: {operation: a}}
known_gaps:
- {sdk: ClientSDK, routes: [GET /a], below: "1.32.0", note: mended}
- {sdk: WalletKit, routes: [GET /a, GET /b], note: open}
`))
	for _, c := range []struct {
		path string
		sdk  apiversion.SDK
		want string
	}{
		{"/a", apiversion.SDK{Name: "ClientSDK", Release: "1.31.9"}, "mended"},
		{"/a", apiversion.SDK{Name: "ClientSDK", Release: "1.32.0-rc.1"}, "mended"},
		{"/a", apiversion.SDK{Name: "ClientSDK", Release: "1.32.0"}, ""},
		{"/b", apiversion.SDK{Name: "ClientSDK", Release: "1.0.0"}, ""},
		{"/a", apiversion.SDK{Name: "WalletKit", Release: "99.0.0"}, "open"},
		{"/b", apiversion.SDK{Name: "WalletKit", Release: "99.0.0"}, "open"},
		{"/a", apiversion.SDK{}, ""},
		{"/a", apiversion.SDK{Name: "walletkit", Release: "1.0.0"}, ""},
	} {
		var m policy.Match
		s.Match("GET", c.path, &m)
		got := ""
		if g := m.Route.Gap(c.sdk); g != nil {
			got = g.Note
		}
		if got != c.want {
			t.Errorf("%s, %+v: got %q, want %q", c.path, c.sdk, got, c.want)
		}
	}
	for name, want := range map[string]bool{"ClientSDK": true, "WalletKit": true, "": false, "Other": false} {
		if s.KnowsSDK(name) != want {
			t.Errorf("knows %q: %v", name, !want)
		}
	}
}
