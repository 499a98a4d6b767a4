package issuer_test

import (
	"testing"
	"time"

	"github.com/stepward/stepward/examples/issuer"
)

func TestSettingsSayWhatTheEnvironmentDemands(t *testing.T) {
	export := issuer.Action{Action: "wallet.waas.export", Required: true}
	rows := []struct {
		name          string
		edit          func(*issuer.Config)
		floor         string
		devices, asks bool
		actions       int
	}{
		{"by default", func(*issuer.Config) {}, "2026_04_01", true, true, 0},
		{"an old environment", func(c *issuer.Config) {
			c.MinimumAPIVersion, c.Actions = "2026_01_01", []issuer.Action{export}
		}, "2026_01_01", false, false, 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, row.edit)
			got := w.do("GET", "/settings", nil)
			security := got.Security
			if got.SDK.MinAPIVersion != row.floor || security.DeviceRegistrationRequired != row.devices ||
				len(security.MFA.Actions) != row.actions || len(security.Auth.Storage) != 1 || len(security.MFA.Methods) != 2 {
				t.Errorf("got %+v", got)
			}
			for name, list := range map[string][]any{"chains": got.Chains, "kyc": got.KYC, "providers": got.Providers} {
				if list == nil {
					t.Errorf("%s is not a list", name)
				}
			}
			ann := w.signIn("ann@example.com", w.from(newDevice(t)))
			again := w.signIn("ann@example.com", w.from(newDevice(t)))
			if pending := again.User.Scope == "device:register"; pending != row.devices {
				t.Errorf("on an unknown device: scope %q", again.User.Scope)
			}
			if check := w.do("POST", "/stepUp/check", m{"scope": "wallet:export"}, bearer(ann.JWT)); check.IsRequired != row.asks {
				t.Errorf("check: got %v", check.IsRequired)
			}
		})
	}
}

func TestSettingsDecideAboutTokens(t *testing.T) {
	w := newWorld(t, func(c *issuer.Config) {
		c.Actions = []issuer.Action{
			{Action: "wallet.waas.sign", TokenBehavior: "time_bound", TokenExpirySeconds: 60},
			{Action: "user.update", TokenBehavior: "single_use"},
		}
	})
	session, secret := enrolled(t, w)
	rows := []struct {
		scopes   []string
		once     bool
		lifetime float64
	}{
		{[]string{"wallet:sign"}, false, 60}, {[]string{"user:update"}, true, 300}, {[]string{"credential:link"}, false, 600},
		{[]string{"wallet:sign", "wallet:export"}, true, 60},
	}
	for _, row := range rows {
		got := w.do("POST", "/users/mfa/auth/totp", m{"code": w.code(secret), "requestedScopes": row.scopes}, bearer(session))
		claims := w.verify(got.ElevatedAccessToken)
		if claims["singleUse"] != row.once || claims["exp"].(float64)-claims["iat"].(float64) != row.lifetime {
			t.Errorf("%v: got %v", row.scopes, claims)
		}
		w.pass(30 * time.Second)
	}
}

func TestTwoEnvironmentsInOneProcess(t *testing.T) {
	old := newWorld(t, func(c *issuer.Config) {
		c.Environment, c.MinimumAPIVersion = "7c0c1b0e-6a9d-4c55-9d39-0c6f3a6f2b22", "2026_01_01"
	})
	fresh := newWorld(t)
	ann := old.signIn("ann@example.com")
	refuse(t, fresh.do("GET", "/users", nil, bearer(ann.JWT)), 401, "unauthorized")
	if got := old.do("GET", "/users", nil, bearer(ann.JWT)); got.Status != 200 || got.ID != ann.User.ID {
		t.Errorf("got %d %s", got.Status, got.ID)
	}
}

func TestUsersReadAndChangeThemselves(t *testing.T) {
	w := newWorld(t, func(c *issuer.Config) {
		c.Wallets = func(user string) ([]map[string]any, error) {
			return []map[string]any{{"id": "w", "format": "blockchain", "refId": user}}, nil
		}
	})
	ann := w.signIn("ann@example.com")
	if got := w.do("PUT", "/users", m{"alias": "Annie", "unknown": 1}, bearer(ann.JWT)); got.Status != 200 || got.User.Alias != "Annie" {
		t.Errorf("update: got %d %+v", got.Status, got.User)
	}
	got := w.do("GET", "/users", nil, bearer(ann.JWT))
	if got.ID != ann.User.ID || got.Alias != "Annie" || got.Email != "ann@example.com" || got.Scope != "user:basic" ||
		got.SessionID != ann.User.SessionID || got.ProjectEnvironmentID != environment || len(got.VerifiedCredentials) != 2 {
		t.Errorf("got %+v", got)
	}
	if got.LastVerifiedCredentialID != got.VerifiedCredentials[0].ID {
		t.Errorf("last credential: got %q", got.LastVerifiedCredentialID)
	}
	if got := w.do("DELETE", "/users", nil, bearer(ann.JWT)); got.Status != 204 {
		t.Errorf("delete: got %d", got.Status)
	}
	refuse(t, w.do("GET", "/users", nil, bearer(ann.JWT)), 401, "unauthorized")
	if again := w.signIn("ann@example.com"); again.User.ID == ann.User.ID || !again.User.NewUser {
		t.Errorf("after the deletion: got %+v", again.User)
	}
}

func TestAFirstFactorCanBeEnrolledRightAfterSigningIn(t *testing.T) {
	w := newWorld(t)
	signIn := func() answer {
		body := w.proof("ann@example.com")
		body["allowNewMFALinking"] = true
		return w.do("POST", "/emailVerifications/signin", body, w.from(newDevice(t)))
	}
	ann := signIn()
	if got := w.verify(ann.ElevatedAccessToken)["scope"]; got != "credential:link" {
		t.Errorf("got scope %v", got)
	}
	if got := signIn(); got.User.Scope != "device:register" || got.ElevatedAccessToken != "" {
		t.Errorf("on an unknown device: got %q, scope %q", got.ElevatedAccessToken, got.User.Scope)
	}
	w = newWorld(t, func(c *issuer.Config) { c.MinimumAPIVersion = "2026_01_01" })
	if _, err := w.issuer.EnrolTOTP(signIn().User.ID); err != nil {
		t.Fatal(err)
	}
	if got := signIn(); got.Status != 200 || got.ElevatedAccessToken != "" {
		t.Errorf("with a factor: got %d %q", got.Status, got.ElevatedAccessToken)
	}
}
