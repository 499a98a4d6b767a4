package extauthz_test

import (
	"testing"

	"github.com/stepward/stepward/extauthz"
)

// A gRPC client's refusal is HTTP 200 with a grpc-status in it, which a proxy that asks would take for a yes.
func TestARefusedGRPCClientIsNoYes(t *testing.T) {
	h := newHTTP(t, loopback)
	for _, kind := range []string{"application/grpc", "application/grpc-web+proto"} {
		for _, mode := range extauthz.Modes() {
			header := described(mode, "POST", "/spend", "Content-Type", kind)
			if a := h.ask("GET", extauthz.ForwardAuthPath+"?mode="+mode, "", header); a.status != 403 || a.header.Get("Step-Up-Challenge") == "" {
				t.Errorf("%s: %+v", mode, a)
			}
		}
		a := h.ask("POST", "/envoy/spend", "", map[string]string{"Authorization": "Bearer session-1", "Content-Type": kind})
		if a.status != 403 || a.header.Get("Step-Up-Challenge") == "" {
			t.Errorf("envoy: %+v", a)
		}
	}
}
