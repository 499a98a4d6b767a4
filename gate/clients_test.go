package gate_test

import (
	"testing"
	"time"

	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/reason"
)

const clientsYAML = `  default: {minimum_api_version: "2026_04_01", step_up: {}, mfa_actions: [wallet.waas.sign], minimum_sdk: {WalletKit: "4.76.0"}, sdk_minimums: advise}
  ` + env + `: {`

func inEnvironment(t *testing.T, members string) func(*gate.Config) {
	t.Helper()
	return withEnvironments(t, clientsYAML+members+"}\n")
}

// withSources reads everything in which clients declare themselves.
func withSources(change func(*gate.Config)) func(*gate.Config) {
	return func(c *gate.Config) {
		change(c)
		c.Client.SDKVersionClaim, c.Client.WalletSDKVersionHeader = "sdkVersion", "x-dyn-wallet-sdk-version"
	}
}

func TestWhereAnSDKIsReadFrom(t *testing.T) {
	const header, core = "X-Dyn-Version", "X-Dyn-Wallet-Sdk-Version"
	for _, c := range []struct {
		name    string
		claim   any
		headers []string
		want    apiversion.SDK
	}{
		{"nothing", nil, nil, apiversion.SDK{}},
		{"its header", nil, []string{header, "ClientSDK/1.27.1"}, apiversion.SDK{Name: "ClientSDK", Release: "1.27.1"}},
		{"a bare release", nil, []string{header, "4.76.0"}, apiversion.SDK{Name: "WalletKit", Release: "4.76.0"}},
		{"the claim", "WalletKit/4.70.0", nil, apiversion.SDK{Name: "WalletKit", Release: "4.70.0"}},
		{"an app that was updated since it signed in", "WalletKit/4.70.0", []string{header, "WalletKit/4.80.0"}, apiversion.SDK{Name: "WalletKit", Release: "4.80.0"}},
		{"a header that cannot be read", "WalletKit/4.70.0", []string{header, "undefined"}, apiversion.SDK{Name: "WalletKit", Release: "4.70.0"}},
		{"an empty header", "WalletKit/4.70.0", []string{header, ""}, apiversion.SDK{Name: "WalletKit", Release: "4.70.0"}},
		{"a claim of another type", []any{"WalletKit/4.70.0"}, nil, apiversion.SDK{}},
		{"a claim that cannot be read", "4", []string{core, "1.0.99"}, apiversion.SDK{Name: "WalletSDK", Release: "1.0.99"}},
		{"the iframe's core, which is not WalletKit", nil, []string{core, "1.0.99"}, apiversion.SDK{Name: "WalletSDK", Release: "1.0.99"}},
		{"the iframe's core beside the SDK", nil, []string{core, "1.0.99", header, "ClientSDK/1.27.1"}, apiversion.SDK{Name: "ClientSDK", Release: "1.27.1"}},
		{"the iframe's core twice", nil, []string{core, "1.0.99", core, "1.0.98"}, apiversion.SDK{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, withSources(inEnvironment(t, "")))
			s := session("user:basic")
			s.Members["sdkVersion"] = c.claim
			f.sessions["alice"] = s
			v := f.decide(request("GET", mount+"/users", append([]string{auth, "Bearer alice"}, c.headers...)...))
			if v.SDK != c.want.Name || v.SDKVersion != string(c.want.Release) || v.Reason != reason.None {
				t.Errorf("got %s/%s, %q", v.SDK, v.SDKVersion, v.Reason)
			}
			if r := f.records[0]; r.SDK != c.want.Name || r.SDKVersion != string(c.want.Release) {
				t.Errorf("record of %s/%s", r.SDK, r.SDKVersion)
			}
		})
	}
}

// A claim that nobody verified is nobody's word.
func TestAForgedSessionNamesNoSDK(t *testing.T) {
	f := newFixture(t, withSources(inEnvironment(t, `sdk_minimums: enforce`)))
	if v := f.decide(request("GET", mount+"/settings", auth, "Bearer forged")); v.SDK != "" || !v.Allow {
		t.Errorf("got %q, %q", v.SDK, v.Reason)
	}
}

func TestMinimumsOfSDKs(t *testing.T) {
	for _, c := range []struct {
		name, members, sdk string
		want               reason.Reason
		advised            apiversion.Release
	}{
		{"older, advised", "sdk_minimums: advise", "WalletKit/4.75.9", reason.None, "4.76.0"},
		{"a prerelease of the minimum, advised", "", "WalletKit/4.76.0-alpha.1", reason.None, "4.76.0"},
		{"a bare release, advised", "", "4.9.0", reason.None, "4.76.0"},
		{"the minimum", "", "WalletKit/4.76.0", reason.None, ""},
		{"the minimum with build metadata", "", "4.76.0+abc", reason.None, ""},
		{"a prerelease of a later one", "", "WalletKit/5.0.0-alpha.1", reason.None, ""},
		{"an SDK without a minimum", "", "ClientSDK/0.1.0", reason.None, ""},
		{"an SDK that does not say who it is", "", "", reason.None, ""},
		{"older, off", "sdk_minimums: off", "WalletKit/4.75.9", reason.None, ""},
		{"older, enforced", "sdk_minimums: enforce", "WalletKit/4.75.9", reason.SDKVersionTooOld, ""},
		{"the minimum, enforced", "sdk_minimums: enforce", "WalletKit/4.76.0", reason.None, ""},
		{"older, below step-up", `minimum_api_version: "2026_01_01"`, "WalletKit/4.75.9", reason.None, ""},
		{"older, rehearsed", "sdk_minimums: advise, mode: shadow", "WalletKit/4.75.9", reason.None, "4.76.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, inEnvironment(t, c.members))
			v := f.decide(request("GET", mount+"/users", auth, "Bearer alice", "X-Dyn-Version", c.sdk))
			if v.Reason != c.want || v.Advised != c.advised || f.records[0].SDKAdvised != string(c.advised) {
				t.Errorf("got %q, advised %q, recorded %q", v.Reason, v.Advised, f.records[0].SDKAdvised)
			}
			if c.advised != "" && v.SDKLabel != "WalletKit" {
				t.Errorf("label %q", v.SDKLabel)
			}
		})
	}
}

// Advice comes with refusals too.
func TestARefusalIsAdvised(t *testing.T) {
	f := newFixture(t, inEnvironment(t, ""))
	if v := f.decide(request("POST", export, auth, "Bearer alice", "X-Dyn-Version", "WalletKit/4.0.0")); v.Reason != reason.ElevatedTokenRequired || v.Advised != "4.76.0" {
		t.Errorf("got %q, advised %q", v.Reason, v.Advised)
	}
}

func TestAnAnnouncedFloor(t *testing.T) {
	const announced = `minimum_api_version: "2026_01_01", announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", sunset: "2027-02-01"}`
	sign := mount + "/waas/w1/signMessage"
	for _, c := range []struct {
		name      string
		members   string
		r         *gate.Request
		want      reason.Reason
		announced bool
		wouldNeed bool
		label     string
	}{
		{"an export without a token", announced, request("POST", export, auth, "Bearer alice", "X-Dyn-Version", "WalletKit/4.80.0"), reason.None, true, true, "WalletKit"},
		{"of an SDK that the policy does not know", announced, request("POST", export, auth, "Bearer alice", "X-Dyn-Version", "Evil-1/1.0.0"), reason.None, true, true, "other"},
		{"of nobody", announced, request("POST", export, auth, "Bearer alice"), reason.None, true, true, "none"},
		{"with an empty token", announced, request("POST", export, auth, "Bearer alice", eat, ""), reason.None, true, true, "none"},
		{"with a token", announced, request("POST", export, auth, "Bearer alice", eat, "good"), reason.None, true, false, ""},
		{"without a session", announced, request("POST", export), reason.SessionRequired, true, false, ""},
		{"an operation that is refused today for want of its MFA token", announced, request("POST", sign, auth, "Bearer alice"), reason.MFATokenRequired, true, false, ""},
		{"and passes with it", announced, request("POST", sign, auth, "Bearer alice", "X-Mfa-Auth-Token", "otp"), reason.None, true, true, "none"},
		{"an operation that stays as it is", announced, request("GET", mount+"/users", auth, "Bearer alice"), reason.None, false, false, ""},
		{"a declared version below the floor", announced, request("POST", export, auth, "Bearer alice", "X-Dyn-Api-Version", "2025_01_01"), reason.APIVersionBelowFloor, true, false, ""},
		{"nothing is announced", `minimum_api_version: "2026_01_01"`, request("POST", export, auth, "Bearer alice"), reason.None, false, false, ""},
		{"the floor is in force", "", request("POST", export, auth, "Bearer alice"), reason.ElevatedTokenRequired, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, inEnvironment(t, c.members))
			v := f.decide(c.r)
			recorded := map[bool]string{true: "step_up"}[c.wouldNeed]
			if v.Reason != c.want || (v.Requirement.Announced != nil) != c.announced || v.WouldNeed != c.wouldNeed || v.SDKLabel != c.label || f.records[0].WouldNeed != recorded {
				t.Errorf("got %q, announced %+v, would need %v (recorded %q), label %q", v.Reason, v.Requirement.Announced, v.WouldNeed, f.records[0].WouldNeed, v.SDKLabel)
			}
			if a := v.Requirement.Announced; a != nil && (a.Version != "2026_04_01" || !a.Sunset.Equal(time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC))) {
				t.Errorf("announced %+v", a)
			}
		})
	}
}

// A known gap names the SDK's fault and excuses nobody.
func TestAKnownGapIsNoExemption(t *testing.T) {
	link := mount + "/verify/link"
	for _, c := range []struct {
		name, members, sdk string
		method, path, body string
		token              string
		want               reason.Reason
		gap                bool
	}{
		{"linking a wallet", "", "ClientSDK/1.27.1", "POST", link, "", "", reason.ElevatedTokenRequired, true},
		{"linking an email address", "", "ClientSDK/1.27.1", "POST", mount + "/emailVerifications/verify", "{}", "", reason.ElevatedTokenRequired, true},
		{"linking a phone number", "", "ClientSDK/1.31.0", "POST", mount + "/smsVerifications/verify", "{}", "", reason.ElevatedTokenRequired, true},
		{"unlinking a wallet", "", "ClientSDK/1.27.1", "POST", mount + "/verify/unlink", "", "", reason.ElevatedTokenRequired, true},
		{"merging accounts", "", "WalletKit/4.90.0", "POST", mount + "/users/merge", "", "", reason.ElevatedTokenRequired, true},
		{"linking Farcaster", "", "WalletKit/4.90.0", "POST", mount + "/farcaster/verify", "", "", reason.ElevatedTokenRequired, true},
		{"rehearsed", "mode: shadow", "ClientSDK/1.27.1", "POST", link, "", "", reason.ElevatedTokenRequired, true},
		{"a step-up, which needs no token", "", "ClientSDK/1.27.1", "POST", mount + "/emailVerifications/verify", `{"requestedScopes":["wallet:export"]}`, "", reason.None, false},
		{"a token that the app attached", "", "ClientSDK/1.27.1", "POST", link, "", "link", reason.None, false},
		{"a wrong token", "", "ClientSDK/1.27.1", "POST", link, "", "good", reason.ElevatedTokenInsufficientScope, false},
		{"an SDK that attaches it", "", "WalletKit/4.90.0", "POST", link, "", "", reason.ElevatedTokenRequired, false},
		{"a call to which the SDK attaches it", "", "ClientSDK/1.27.1", "POST", mount + "/users/passkeys/register", "", "", reason.ElevatedTokenRequired, false},
		{"an SDK that does not say who it is", "", "", "POST", link, "", "", reason.ElevatedTokenRequired, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, inEnvironment(t, c.members))
			r := request(c.method, c.path, auth, "Bearer alice", "X-Dyn-Version", c.sdk, "Content-Type", "application/json")
			if c.token != "" {
				r.Header.Set(eat, c.token)
			}
			r.ReadBody = body(c.body)
			v := f.decide(r)
			if v.Reason != c.want || (v.Gap != nil) != c.gap || f.records[0].SDKGap != c.gap {
				t.Errorf("got %q, gap %+v, recorded %v", v.Reason, v.Gap, f.records[0].SDKGap)
			}
			if v.Allow != (c.want == reason.None || v.Shadow) {
				t.Errorf("allow %v with %q", v.Allow, v.Reason)
			}
			if c.gap && v.SDKLabel != v.SDK {
				t.Errorf("label %q", v.SDKLabel)
			}
		})
	}
}
