package issuer

import "net/http"

// The values of Config.MinimumAPIVersion.
const (
	versionOld    = "2026_01_01"
	versionStepUp = "2026_04_01"
)

// stepsUp says whether the environment is at the floor from which elevated tokens are asked for and devices are registered.
func (i *Issuer) stepsUp() bool { return i.cfg.MinimumAPIVersion >= versionStepUp }

// Action is an operation for which the environment wants a second factor, as GET settings tells it.
type Action struct {
	// Action is a name such as wallet.waas.export (models/MFAAction.js of sdk-api-core).
	Action   string `json:"action"`
	Required bool   `json:"required"`
	// TokenBehavior is single_use or time_bound; empty leaves it to the scope.
	TokenBehavior string `json:"tokenBehavior,omitempty"`
	// TokenExpirySeconds is how long its tokens last; zero leaves that to the behaviour.
	TokenExpirySeconds int `json:"tokenExpirySeconds,omitempty"`
}

// displayName is what people are shown as the name of the site.
const displayName = "Stepward example"

type object = map[string]any

// GET /settings is public: SDKs read it before anybody signs in (models/ProjectSettings.js of sdk-api-core).
func (i *Issuer) settings(r *http.Request) (any, error) {
	methods := []object{
		{"type": "totp", "enabled": true, "allowBackupCodes": true},
		{"type": "passkey", "enabled": true, "allowBackupCodes": true},
	}
	return object{
		"environmentName": "sandbox",
		"chains":          []object{{"name": "evm", "enabled": true}, {"name": "solana", "enabled": true}},
		"kyc":             []any{},
		"design":          object{},
		"general":         object{"displayName": displayName},
		"privacy":         object{"collectIp": false},
		"networks":        []any{},
		"providers":       i.providers(r),
		"sdk": object{
			"minApiVersion": i.cfg.MinimumAPIVersion, "multiWallet": true,
			"emailSignIn": object{"signInProvider": "dynamic"}, "socialSignIn": object{"signInProvider": "dynamic"},
		},
		"security": object{
			"mfa": object{
				"enabled": true, "required": false, "enrollment": "action",
				"availableMethods": []string{"totp", "passkey"}, "methods": methods, "actions": i.cfg.Actions,
			},
			"auth":                       object{"storage": i.cfg.Storage},
			"externalAuth":               i.externalAuth(),
			"deviceRegistrationRequired": i.stepsUp(),
			"environmentLocked":          false,
			"jwtDuration":                object{"amount": int(i.cfg.SessionLifetime.Minutes()), "unit": "minutes"},
		},
	}, nil
}
