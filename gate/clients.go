package gate

import (
	"net/http"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/reason"
	"github.com/stepward/stepward/token"
)

// sdkOf is the SDK that a request comes from, as far as anybody says so: its header, then the session's claim of the SDK that
// signed in, then the release of the wallet iframe's core. What cannot be read says nothing. None of it proves anything: an
// SDK that does not say who it is has no minimum.
func (g *Gate) sdkOf(declared string, h http.Header, session *token.Claims) apiversion.SDK {
	if sdk, err := apiversion.ParseSDK(declared); err == nil && sdk.Name != "" {
		return sdk
	}
	c := &g.config.Client
	if session != nil && c.SDKVersionClaim != "" {
		claimed, _ := session.Members[c.SDKVersionClaim].(string)
		if sdk, err := apiversion.ParseSDK(claimed); err == nil && sdk.Name != "" {
			return sdk
		}
	}
	core, _ := single(h, c.WalletSDKVersionHeader)
	sdk, _ := apiversion.ParseWalletSDK(core)
	return sdk
}

// inform adds what the client's developers should know to a verdict that is settled.
func (g *Gate) inform(r *Request, v *Verdict, d *decision, why reason.Reason) {
	q := v.Requirement
	if q == nil {
		return
	}
	if least, ok := q.AdviseSDK[d.sdk.Name]; ok && d.sdk.Name != "" && d.sdk.Release.Less(least) {
		v.Advised = least
	}
	sent, _ := single(r.Header, g.config.Elevated.Header)
	if why == reason.ElevatedTokenRequired && sent == "" {
		v.Gap = v.Route.Gap(d.sdk)
	}
	v.WouldNeed = why == reason.None && q.Announced != nil && sent == ""
	if v.Advised != "" || v.Gap != nil || v.WouldNeed {
		v.SDKLabel = sdkLabel(d)
	}
}

func sdkLabel(d *decision) string {
	switch {
	case d.sdk.Name == "":
		return "none"
	case d.snapshot.KnowsSDK(d.sdk.Name):
		return d.sdk.Name
	}
	return "other"
}
