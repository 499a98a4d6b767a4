package policy

import (
	"net/http"

	"github.com/stepward/stepward/internal/apiversion"
)

// Input is what a policy may ask about a request. The engine projects it to those members that the compiled policy can
// read, so filling it costs nothing for members nobody reads. Nothing in it is modified or kept.
type Input struct {
	Match       *Match
	Method      string
	Path        string // canonical, as it will be sent
	RawQuery    string // canonical, as it will be sent
	Host        string
	Header      http.Header    // the policy sees the names that data.stepward.input_headers lists
	Body        any            // decoded JSON with json.Number; nil unless the route has ReadBody
	Environment string         // "" when none is known
	Client      Client         //
	Session     map[string]any // verified claims, nil if there is no good session
	Device      Device
}

// Client is what the caller says of itself. Compatibility facts, never proof.
type Client struct {
	APIVersion string // declared dated version, canonical spelling; "" when undeclared
	SDK        string // "WalletKit", "ClientSDK", …; "" when unknown
	SDKVersion string
}

// Device is what the session says of the caller's device.
type Device struct {
	State DeviceState
	ID    string // claim deviceRegistrationId
}

// DeviceState is one of three words.
type DeviceState string

// The device states. The zero value is read as DeviceUnknown.
const (
	Registered    DeviceState = "registered"
	Unregistered  DeviceState = "unregistered"
	DeviceUnknown DeviceState = "unknown"
)

// Route is one entry of data.stepward.routes.
type Route struct {
	Pattern   string // with method and mount, as metrics and logs speak of it
	Method    string // "" for any
	Operation string
	ReadBody  int64 // bytes of body the policy wants to see; 0 = none
	WebSocket bool  // an upgrade to websocket is allowed
	Gaps      []Gap // SDKs that are known to attach no elevated token here
}

// Gap is a route on which a shipped SDK is known to attach no elevated token. It explains a refusal and never prevents one.
type Gap struct {
	SDK   string
	Below apiversion.Release // the first release without it; "" when there is none yet
	Note  string             // for the app's developer
}

// Gap is what is known of an SDK on this route; nil when nothing is.
func (r *Route) Gap(sdk apiversion.SDK) *Gap {
	for i := range r.Gaps {
		if g := &r.Gaps[i]; g.SDK == sdk.Name && (g.Below == "" || sdk.Release.Less(g.Below)) {
			return g
		}
	}
	return nil
}

// Match is the answer of the route table for one method and path.
type Match struct {
	Route     *Route   // nil when nothing matches
	Params    []Param  // in the order of the pattern
	Allow     []string // when Route is nil: the methods for which the path has routes, sorted; empty = no such path
	Ambiguous bool     // the path means another route to a backend that ignores case or a trailing slash; Route is nil
}

// Param is one wildcard's value.
type Param struct{ Name, Value string }

// Environment is what policy data says of an environment to Go.
type Environment struct {
	Shadow bool // mode: shadow
	Locked bool

	minimum apiversion.Version // as the data says it, for what must be above it
}
