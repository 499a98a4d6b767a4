package policy_test

import (
	"os"
	"strings"
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

// What docs/clients.md shows works as pasted.
func TestTheManualOfClients(t *testing.T) {
	text, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```yaml\n")
	if len(parts) != 3 {
		t.Fatalf("%d snippets, want 2", len(parts)-1)
	}
	environments, _, _ := strings.Cut(parts[1], "```")
	gaps, _, _ := strings.Cut(parts[2], "```")
	fsys := withEnvironments(t, environments)
	before, rest, _ := strings.Cut(string(fsys["data.yaml"].Data), "\nknown_gaps:\n")
	_, after, _ := strings.Cut(rest, "\n# Routes in")
	fsys["data.yaml"].Data = []byte(before + "\n" + gaps + "#" + after)
	s := load(t, fsys)
	q := asked(t, s, "3f0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b11", "POST", "/api/v0/sdk/e/waas/w/privateKey/export")
	if q.Announced == nil || q.Announced.Link == "" || q.Announced.Sunset.IsZero() || q.AdviseSDK["ClientSDK"] != "0.24.1" {
		t.Errorf("got %+v", q)
	}
	var m policy.Match
	if s.Match("POST", "/api/v0/sdk/e/verify/link", &m); m.Route.Gap(apiversion.SDK{Name: "ClientSDK", Release: "1.99.0"}) == nil {
		t.Error("the gap is not there")
	}
}

// Every route on which dynamic.md (k) 11 and 12 find no token is named, for the SDK that leaves it out.
func TestShippedGaps(t *testing.T) {
	s := load(t, shippedFiles(t))
	for sdk, paths := range map[string][]string{
		"ClientSDK": {"verify/link", "emailVerifications/verify", "smsVerifications/verify", "verify/unlink", "verify/transfer", "users/merge"},
		"WalletKit": {"farcaster/verify", "telegram/verify", "verify/transfer", "verify/merge", "users/merge"},
	} {
		for _, path := range paths {
			var m policy.Match
			if s.Match("POST", "/api/v0/sdk/e/"+path, &m); m.Route.Gap(apiversion.SDK{Name: sdk, Release: "9.0.0"}) == nil {
				t.Errorf("%s on %s is not named", sdk, path)
			}
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
