package main

import (
	"strings"
	"testing"

	"github.com/stepward/stepward/examples/backend"
)

// An app that is not ready: its SDK is older than Dynamic's minimum, and attaches no token where it links a wallet.
func TestWhoeverShipsTheAppIsTold(t *testing.T) {
	w := newWorld(t)
	w.start()
	old := map[string]string{"X-Dyn-Version": "ClientSDK/0.24.0", "X-Dyn-Api-Version": "API/0.0.1125"}
	read := w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann"), header: old})
	w.expect(read, 200, "")
	if got := read.Header.Get("Stepward-Advice"); got != `sdk_version_too_old;sdk="ClientSDK";minimum="0.24.1"` {
		t.Errorf("got Stepward-Advice %q", got)
	}
	link := callOf{method: "POST", path: w.issuer.Prefix() + "/verify/link", body: "{}", session: w.session("ann"), header: map[string]string{
		"X-Dyn-Version": "ClientSDK/0.24.0", "Content-Type": "application/json",
	}}
	refused := w.do(link)
	w.expect(refused, 403, "elevated_access_token_required")
	for _, want := range []string{
		`"advice":{"code":"sdk_version_too_old","sdk":"ClientSDK","minimum_sdk_version":"0.24.1","received_version":"0.24.0"}`,
		`"client_gap":"ClientSDK attaches no elevated access token when it links a wallet`,
	} {
		if !strings.Contains(refused.Body, want) {
			t.Errorf("%s is missing in %s", want, refused.Body)
		}
	}
	fresh := w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann"), header: map[string]string{"X-Dyn-Version": "ClientSDK/1.27.1"}})
	if w.expect(fresh, 200, ""); fresh.Header.Get("Stepward-Advice") != "" {
		t.Errorf("a new SDK is told %q", fresh.Header.Get("Stepward-Advice"))
	}
	_, page := w.admin("/metrics")
	for _, want := range []string{
		`stepward_sdk_advice_total{sdk="ClientSDK"} 2`, `stepward_client_gaps_total{operation="credential.link",sdk="ClientSDK"} 1`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is not counted", want)
		}
	}
	if log := w.file("decisions.jsonl"); !strings.Contains(log, `"sdk_advised":"0.24.1","sdk_gap":true`) {
		t.Errorf("the decision log has %s", log)
	}
}

// Who would be challenged if the floor were raised?
func TestAnAnnouncedFloorIsSaidAndCounted(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(func(data string) string {
		return strings.Replace(data, "environments:\n", "environments:\n  "+testEnvironment+`:
    minimum_api_version: "2026_01_01"
    announced: {minimum_api_version: "2026_04_01", deprecation: "2026-12-01", sunset: "2027-02-01T09:00:00Z", link: "https://docs.example/step-up"}
`, 1)
	})
	w.start("policy: {path: policy}")
	path := w.wallet("ann")
	export := callOf{method: "POST", path: path, body: `{"exportId":"` + must(backend.NewExportKey()).ID() + `"}`, session: w.session("ann"), header: map[string]string{
		"X-Dyn-Version": "WalletKit/4.76.0-alpha.1",
	}}
	passed := w.do(export)
	w.expect(passed, 200, "")
	for name, want := range map[string]string{
		"Deprecation": "@1796083200", "Sunset": "Mon, 01 Feb 2027 09:00:00 GMT", "Link": `<https://docs.example/step-up>; rel="deprecation"`,
		"Stepward-Advice": `sdk_version_too_old;sdk="WalletKit";minimum="4.76.0"`,
	} {
		if got := passed.Header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	export.elevated = w.elevated("ann", "wallet:export")
	w.expect(w.do(export), 200, "") // ready for it
	export.session, export.elevated = "", ""
	refused := w.do(export)
	if w.expect(refused, 401, "session_required"); !strings.Contains(refused.Body, `"announced_version":"2026_04_01","sunset":"2027-02-01T09:00:00Z"`) || refused.Header.Get("Sunset") == "" {
		t.Errorf("the refusal announces nothing: %v %s", refused.Header, refused.Body)
	}
	read := w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann")})
	if read.Header.Get("Deprecation") != "" {
		t.Error("what stays as it is is deprecated")
	}
	if _, page := w.admin("/metrics"); !strings.Contains(page, `stepward_would_challenge_total{operation="wallet.export",sdk="WalletKit"} 1`) {
		t.Error("readiness is not counted, or twice")
	}
	if log := w.file("decisions.jsonl"); strings.Count(log, `"would_need":"step_up"`) != 1 {
		t.Errorf("the decision log has %s", log)
	}
}

// Enforcing is one word, and an app that never says what it is is taken by what its session says.
func TestMinimumsAreEnforcedByTheSessionsClaimToo(t *testing.T) {
	w := newWorld(t)
	w.copyPolicy(func(data string) string {
		return strings.Replace(data, "sdk_minimums: advise", "sdk_minimums: enforce", 1)
	})
	w.start("policy: {path: policy}")
	session := w.session("ann", func(claims map[string]any) { claims["sdkVersion"] = "WalletKit/4.75.0" })
	silent := callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: session}
	w.expect(w.do(silent), 400, "sdk_version_too_old")
	silent.header = map[string]string{"X-Dyn-Version": "WalletKit/4.76.0"}
	w.expect(w.do(silent), 200, "")
	w.expect(w.do(callOf{method: "GET", path: w.issuer.Prefix() + "/users", session: w.session("ann"), header: map[string]string{
		"X-Dyn-Wallet-Sdk-Version": "1.0.99",
	}}), 200, "")
}
