package policy

import (
	"time"

	"github.com/stepward/stepward/internal/apiversion"
)

// Requirement is what a request must bring, as Rego said and Go decoded it. It is immutable and shared. Its zero value
// is not a permission: Operation is empty, and the gate refuses that.
type Requirement struct {
	Operation string // never empty in a decoded requirement
	Session   bool
	// Scopes is a conjunction of choices: of each Choice the elevated token must carry at least one. Beside MFAAction they are
	// those of the elevated token that is accepted in place of the MFA token.
	Scopes            []Choice
	Token             TokenUse
	MaxAge            time.Duration // 0: no bound
	Device            DeviceRule
	MinimumAPIVersion apiversion.Version            // zero: no floor
	MinimumSDK        map[string]apiversion.Release // by SDK name, such as "WalletKit"
	AdviseSDK         map[string]apiversion.Release // like MinimumSDK, but an older SDK is only told
	Announced         *Announcement                 // a coming floor that will ask more of this operation; nil: none is announced
	MFAAction         string                        // "" when no action-based MFA is needed
	UnenrolledPass    bool                          // a user without a second factor needs no MFA token
	Methods           []string                      // verification methods to offer in the challenge
	ReleaseOn         []int                         // backend statuses that mean "not done"
	Deny              *Denial                       // the policy refuses outright
	DeviceProof       bool                          // the request must prove possession of a device's key
	Recheck           bool                          // whether the session stands is asked afresh
}

// Choice is a list of scopes of which any one will do; most have one member. Never empty.
type Choice []string

// TokenUse says how an elevated token may be used for an operation.
type TokenUse string

// The token uses. The zero value is for requirements without scopes.
const (
	AnyUse    TokenUse = ""
	SingleUse TokenUse = "single_use"
	TimeBound TokenUse = "time_bound"
)

// DeviceRule says whether the device must be registered. The zero value is the strict one.
type DeviceRule uint8

// The device rules. Decoding resolves an absent member: registered where a session is required, any elsewhere.
const (
	DeviceRegistered DeviceRule = iota
	DeviceAny
)

// Announcement says that the minimum version will be raised, and when (RFC 9745, RFC 8594).
type Announcement struct {
	Version     apiversion.Version // the minimum to come
	Deprecation time.Time          // from when on clients should be ready for it
	Sunset      time.Time          // when it comes; zero: not said, else not before Deprecation
	Link        string             // an https URL with more about it; "" tells none
}

// Denial is a policy's own refusal.
type Denial struct{ Code, Message string }
