package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stepward/stepward/internal/settings"
)

// whole is an environment as the shipped SDK types it, with members that do not matter.
const whole = `{
  "environmentName": "live", "chains": [{"name": "evm", "enabled": true}], "kyc": [], "design": {"a": {"b": [1, 2.5e3, null]}},
  "general": {}, "privacy": {}, "networks": [{"chainId": 1, "chainID": 1}],
  "sdk": {"minApiVersion": "2026_04_01", "multiWallet": true},
  "security": {
    "jwtDuration": {"unit": "hours", "amount": 2}, "environmentLocked": false, "deviceRegistrationRequired": true,
    "auth": {"storage": ["localstorage", "cookie", "vault"]},
    "mfa": {"enabled": false, "required": true, "enrollment": "action", "actions": [
      {"action": "wallet.waas.sign", "required": false, "tokenBehavior": "time_bound"},
      {"action": "wallet.waas.export", "required": true, "tokenBehavior": "single_use", "tokenExpirySeconds": 120},
      {"action": "user.update", "required": true}
    ]}
  }
}`

func TestAWholeEnvironment(t *testing.T) {
	got, err := settings.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &settings.Settings{
		MinimumAPIVersion: "2026_04_01", DeviceRegistration: &yes, DeviceCookie: &yes,
		Actions: []settings.Action{
			{Name: "user.update", Required: true},
			{Name: "wallet.waas.export", Required: true, Token: "single_use", MaxAge: 2 * time.Minute},
			{Name: "wallet.waas.sign", Token: "time_bound", MaxAge: 10 * time.Minute},
		},
	}
	if !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWhatIsNotSaid(t *testing.T) {
	yes, no := true, false
	for _, row := range []struct {
		name, text string
		want       settings.Settings
	}{
		{"no minimum is the oldest", `{"sdk": {}, "security": {}}`, settings.Settings{MinimumAPIVersion: "2026_01_01"}},
		{"null is absent, as in the SDK", `{"sdk": {"minApiVersion": null}, "security": {"mfa": null, "auth": null, "environmentLocked": null, "deviceRegistrationRequired": null}}`,
			settings.Settings{MinimumAPIVersion: "2026_01_01"}},
		{"the other spelling", `{"sdk": {"minApiVersion": "2026-04-01"}, "security": {}}`, settings.Settings{MinimumAPIVersion: "2026_04_01"}},
		{"a version to come", `{"sdk": {"minApiVersion": "2027_02_28"}, "security": {}}`, settings.Settings{MinimumAPIVersion: "2027_02_28"}},
		{"no actions are said", `{"sdk": {}, "security": {"mfa": {}}}`, settings.Settings{MinimumAPIVersion: "2026_01_01"}},
		{"it is said that there are no actions", `{"sdk": {}, "security": {"mfa": {"actions": []}}}`,
			settings.Settings{MinimumAPIVersion: "2026_01_01", Actions: []settings.Action{}}},
		{"locked, without cookies and registration",
			`{"sdk": {}, "security": {"environmentLocked": true, "deviceRegistrationRequired": false, "auth": {"storage": ["localstorage"]}}}`,
			settings.Settings{MinimumAPIVersion: "2026_01_01", Locked: true, DeviceRegistration: &no, DeviceCookie: &no}},
		{"an escaped name is that name", `{"\u0073dk": {}, "security": {"auth": {"storage": ["cooki\u0065"]}}}`,
			settings.Settings{MinimumAPIVersion: "2026_01_01", DeviceCookie: &yes}},
		{"a lifetime without a use", action(`"action": "a", "required": true, "tokenExpirySeconds": 60`),
			settings.Settings{MinimumAPIVersion: "2026_01_01", Actions: []settings.Action{{Name: "a", Required: true, MaxAge: time.Minute}}}},
	} {
		if got, err := settings.Parse([]byte(row.text)); err != nil || !got.Equal(&row.want) {
			t.Errorf("%s: got %+v, %v", row.name, got, err)
		}
	}
}

// action is an environment with one action.
func action(members string) string {
	return `{"sdk": {}, "security": {"mfa": {"actions": [{` + members + `}]}}}`
}

func TestWhatIsNotUnderstoodIsAnError(t *testing.T) {
	security := func(members string) string { return `{"sdk": {}, "security": {` + members + `}}` }
	for _, row := range []struct{ name, text, want string }{
		{"nothing", ``, "settings: want an object"},
		{"a page", `<html></html>`, "settings: want an object"},
		{"a list", `[]`, "settings: want an object"},
		{"half of it", whole[:len(whole)/2], "settings: want an object"},
		{"something behind it", `{"sdk": {}, "security": {}} {}`, "settings: want an object"},
		{"an error of the backend", `{"error": "no such environment"}`, "sdk: want an object"},
		{"no security", `{"sdk": {}}`, "security: want an object"},
		{"null for the SDK", `{"sdk": null, "security": {}}`, "sdk: want an object"},
		{"another case", `{"SDK": {}, "security": {}}`, "sdk: want an object"},
		{"two SDKs", `{"sdk": {"minApiVersion": "2026_04_01"}, "sdk": {}, "security": {}}`, "settings: want an object with each member once"},
		{"two minimums", `{"sdk": {"minApiVersion": "2026_04_01", "minApiVersion": "2026_01_01"}, "security": {}}`, "sdk: want an object with each member once"},
		{"a minimum without separators", `{"sdk": {"minApiVersion": "20260401"}, "security": {}}`, "sdk.minApiVersion: want a dated version"},
		{"a minimum that is a number", `{"sdk": {"minApiVersion": 2026}, "security": {}}`, "sdk.minApiVersion: want text"},
		{"an empty minimum", `{"sdk": {"minApiVersion": ""}, "security": {}}`, "sdk.minApiVersion: want a dated version"},
		{"locked by a word", security(`"environmentLocked": "true"`), "security.environmentLocked: want true or false"},
		{"registration by a number", security(`"deviceRegistrationRequired": 1`), "security.deviceRegistrationRequired: want true or false"},
		{"storage that is no list", security(`"auth": {"storage": "cookie"}`), "security.auth.storage: want a list"},
		{"storage of numbers", security(`"auth": {"storage": [1]}`), "security.auth.storage: want text"},
		{"auth that is a list", security(`"auth": []`), "security.auth: want an object"},
		{"actions in an object", security(`"mfa": {"actions": {}}`), "security.mfa.actions: want a list"},
		{"too many actions", security(`"mfa": {"actions": [` + strings.Repeat("null,", 64) + `null]}`), "security.mfa.actions: want a list of at most 64"},
		{"an action that is text", security(`"mfa": {"actions": ["wallet.waas.sign"]}`), "security.mfa.actions[0]: want an object"},
		{"an action without a name", action(`"required": true`), "security.mfa.actions[0].action: want text"},
		{"an action with a line break", action(`"action": "a\nb", "required": true`), "security.mfa.actions[0].action: want a name"},
		{"an action that does not say whether", action(`"action": "a"`), "security.mfa.actions[0].required: want true or false"},
		{"one action twice", action(`"action": "a", "required": true}, {"action": "a", "required": false`), "security.mfa.actions: want each action once"},
		{"a use to come", action(`"action": "a", "required": true, "tokenBehavior": "twice"`), "security.mfa.actions[0].tokenBehavior: want single_use"},
		{"a negative lifetime", action(`"action": "a", "required": true, "tokenExpirySeconds": -1`), "security.mfa.actions[0].tokenExpirySeconds: want a whole"},
		{"no lifetime", action(`"action": "a", "required": true, "tokenExpirySeconds": 0`), "security.mfa.actions[0].tokenExpirySeconds: want a whole"},
		{"half seconds", action(`"action": "a", "required": true, "tokenExpirySeconds": 1.5`), "security.mfa.actions[0].tokenExpirySeconds: want a whole"},
		{"a lifetime beyond counting", action(`"action": "a", "required": true, "tokenExpirySeconds": 9223372037`), "security.mfa.actions[0].tokenExpirySeconds: want a whole"},
		{"a lifetime in text", action(`"action": "a", "required": true, "tokenExpirySeconds": "300"`), "security.mfa.actions[0].tokenExpirySeconds: want a whole"},
	} {
		got, err := settings.Parse([]byte(row.text))
		if got != nil || err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: got %+v, %v, want %s", row.name, got, err, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(action(`"action": "a", "required": true, "tokenBehavior": "single_use", "tokenExpirySeconds": 60`)))
	f.Add([]byte(`{"sdk": {"minApiVersion": null}, "security": {"auth": {"storage": []}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := settings.Parse(text)
		if (s == nil) != (err != nil) {
			t.Fatalf("settings %v with error %v", s, err)
		}
		if err != nil {
			return
		}
		if !settings.Sound(s) {
			t.Errorf("the cache would not take %+v", s)
		}
		if again, err := settings.Parse(text); err != nil || !again.Equal(s) {
			t.Errorf("read twice: %+v and %+v, %v", s, again, err)
		}
	})
}
