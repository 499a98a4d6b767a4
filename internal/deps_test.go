// Package internal_test holds the import graph as data and enforces it, after go/build/deps_test.go.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/stepward/stepward/"

// leaves may be imported by every package of ours.
var leaves = []string{"internal/apiversion", "internal/canon", "internal/reason"}

// allowed says which of our packages each package may import besides the leaves. A package that is missing here fails
// the test: adding one is a decision about the design (design.md section 2).
var allowed = map[string][]string{
	"internal/apiversion":  {},
	"internal/canon":       {},
	"internal/reason":      {},
	"internal/admin":       {},
	"internal/decisionlog": {},
	"internal/fetch":       {},
	"internal/framing":     {},
	"internal/listen":      {},
	"internal/metrics":     {},
	"internal/settings":    {"internal/fetch"},
	"internal/strictjson":  {},
	"internal/watch":       {},
	"internal/deviceproof": {},
	"internal/standing":    {},

	"config": {},
	"rego":   {},
	"token":  {"internal/fetch", "internal/strictjson"},
	"ledger": {},
	"policy": {},

	"gate":      {"token", "ledger", "policy", "internal/decisionlog", "internal/strictjson", "internal/deviceproof", "internal/standing"},
	"challenge": {"gate", "policy"},
	"proxy":     {"gate", "challenge", "internal/door", "internal/framing"},
	"extauthz":  {"gate", "challenge", "internal/door", "internal/framing"},

	"internal/door": {"gate", "internal/framing"},

	"ledger/ledgertest": {"ledger"},
	"ledger/postgres":   {"ledger"},
	"ledger/redis":      {"ledger"},

	"examples/issuer":  {},
	"examples/backend": {},
	"examples/oidc":    {},
	"examples/demo":    {"examples/backend", "examples/issuer"},
	"examples/site":    {"examples/issuer"},
}

// unrestricted may import everything: the program, and what only tests and measurements use.
var unrestricted = []string{"cmd/stepward", "internal/testkit", "bench", "test"}

// owners says which packages alone may import a dependency, so that its types never leak.
var owners = map[string][]string{
	"github.com/open-policy-agent/opa":                     {"policy"},
	"github.com/golang-jwt/jwt":                            {"token", "examples/issuer", "examples/oidc", "examples/site"},
	"github.com/hashicorp/golang-lru":                      {"token", "policy"},
	"go.etcd.io/bbolt":                                     {"ledger", "examples/issuer", "examples/backend", "examples/oidc"},
	"github.com/rs/cors":                                   {"challenge", "examples/backend"},
	"github.com/go-webauthn/webauthn":                      {"examples/issuer"},
	"github.com/decred/dcrd/dcrec/secp256k1":               {"examples/issuer"},
	"golang.org/x/crypto/sha3":                             {"examples/issuer"},
	"github.com/prometheus/client_golang":                  {"internal/metrics", "internal/admin", "cmd/stepward"},
	"github.com/jackc/pgx":                                 {"ledger/postgres"},
	"github.com/redis/rueidis":                             {"ledger/redis"},
	"go.yaml.in/yaml":                                      {"config", "policy"},
	"google.golang.org/grpc":                               {"extauthz"},
	"github.com/envoyproxy/go-control-plane":               {"extauthz"},
	"github.com/dunglas/httpsfv":                           {"challenge"},
	"github.com/pquerna/otp":                               {"examples/issuer", "examples/demo"},
	"google.golang.org/genproto/googleapis/rpc/errdetails": {"challenge", "extauthz"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(out); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	// The folder of this test has tests alone.
	return slices.DeleteFunc(all, func(p listed) bool { return p.ImportPath == module+"internal" })
}

func within(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

func TestImportsFollowTheDesign(t *testing.T) {
	all := packages(t)
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, module)
		if within(name, unrestricted) {
			continue
		}
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s is not in the table: say what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			ours, isOurs := strings.CutPrefix(imported, module)
			if isOurs && !slices.Contains(leaves, ours) && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s, which the design does not allow", name, ours)
			}
		}
	}
}

func TestDependenciesHaveOneOwner(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if within(name, []string{"internal/testkit", "bench", "test"}) {
			continue
		}
		for _, imported := range p.Imports {
			for dependency, may := range owners {
				if within(imported, []string{dependency}) && !within(name, may) {
					t.Errorf("%s imports %s, which belongs to %v", name, imported, may)
				}
			}
		}
	}
}
