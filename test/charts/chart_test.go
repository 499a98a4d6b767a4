// Package charts renders the Helm chart and the Kubernetes examples with the real helm and checks them against Kubernetes' own
// schemas, and what Stepward is given in them with Stepward's own loader.
package charts_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/config"
	"github.com/stepward/stepward/internal/testkit"
)

const root = "../.."

// The oldest and newest Kubernetes that the chart is for.
var versions = []string{"1.30", "1.37"}

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program := testkit.Part(t, root+"/.work/bin/helm")
	chart := []string{"template", "release", root + "/charts/stepward", "--namespace", "wallets", "--kube-version", "1.34.0"}
	cmd := exec.CommandContext(t.Context(), program, append(chart, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.New(stderr.String())
	}
	return stdout.String(), nil
}

type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	raw      string
}

func objects(t *testing.T, text string) []object {
	t.Helper()
	var list []object
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		var o object
		if err := n.Decode(&o); err != nil {
			t.Fatal(err)
		}
		raw, err := yaml.Marshal(&n)
		if err != nil {
			t.Fatal(err)
		}
		if o.Kind != "" {
			o.raw = string(raw)
			list = append(list, o)
		}
	}
}

// foreign kinds have no schema in Kubernetes.
var foreign = []string{"ServiceMonitor", "AuthorizationPolicy", "PeerAuthentication", "EnvoyFilter"}

// conforms checks objects with Kubernetes' schemas; a member that they do not know is a fault.
func conforms(t *testing.T, list []object) {
	t.Helper()
	program := testkit.Part(t, root+"/.work/venv/bin/kubernetes-validate")
	var text strings.Builder
	for _, o := range list {
		if !slices.Contains(foreign, o.Kind) {
			text.WriteString("---\n" + o.raw)
		}
	}
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		out, err := exec.CommandContext(t.Context(), program, "--strict", "-k", version, file).CombinedOutput()
		if err != nil {
			t.Errorf("Kubernetes %s: %v\n%s", version, err, out)
		}
	}
}

// configIn is the Stepward configuration of a ConfigMap, read by Stepward's own loader.
func configIn(t *testing.T, list []object) *config.Config {
	t.Helper()
	for _, o := range list {
		if text, ok := o.Data["stepward.yaml"]; ok {
			cfg, err := config.Parse("stepward.yaml", []byte(text), config.LoadOptions{})
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			return cfg
		}
	}
	t.Fatal("no ConfigMap has stepward.yaml")
	return nil
}

func kinds(list []object) string {
	var names []string
	for _, o := range list {
		names = append(names, o.Kind)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

func TestTheChart(t *testing.T) {
	rows := []struct{ values, kinds string }{
		{"gateway", "ConfigMap Deployment NetworkPolicy PersistentVolumeClaim Service ServiceAccount"},
		{"fleet", "ConfigMap Deployment NetworkPolicy PodDisruptionBudget Service ServiceAccount ServiceMonitor"},
	}
	for _, row := range rows {
		t.Run(row.values, func(t *testing.T) {
			out, err := helm(t, "-f", root+"/charts/stepward/ci/"+row.values+".yaml")
			if err != nil {
				t.Fatal(err)
			}
			list := objects(t, out)
			if got := kinds(list); got != row.kinds {
				t.Errorf("kinds %s, want %s", got, row.kinds)
			}
			conforms(t, list)
			cfg := configIn(t, list)
			if row.values == "fleet" && (cfg.ExtAuthz.Listen != "0.0.0.0:9191" || cfg.ExtAuthz.TLS.ClientCAFile == "" || cfg.Upstream != nil) {
				t.Errorf("the doors are not those of the values: %+v", cfg.ExtAuthz)
			}
			if row.values == "gateway" && (cfg.Listen != "0.0.0.0:8080" || cfg.Ledger.Path != "/var/lib/stepward/ledger.db") {
				t.Errorf("listen %s, ledger %+v", cfg.Listen, cfg.Ledger)
			}
		})
	}
}

// What would forget spent tokens, or leave Stepward without a door, is not rendered.
func TestTheChartRefuses(t *testing.T) {
	rows := map[string][]string{
		"would each accept a single-use token once": {"--set", "replicas=2"},
		"pods with a memory: ledger":                {"--set", "replicas=3,config.ledger=memory:,config.dangerously_single_replica=true"},
		"is lost with its pod":                      {"--set", "config.ledger=bolt:///tmp/x.db"},
		"config.listen: the chart writes it":        {"--set", "config.listen=127.0.0.1:1"},
		"config.ext_authz.listen":                   {"--set", "config.ext_authz.listen=127.0.0.1:1"},
		"config.policy.path":                        {"--set", "config.policy.path=/x"},
		"config.session: is missing":                {"--set", "config.session=null"},
		"config.upstream: is missing":               {"--set", "config.upstream=null"},
		"config.trusted_proxies":                    {"--set", "doors.forwardAuth.enabled=true"},
		"doors: all are closed":                     {"--set", "doors.proxy.enabled=false"},
		"additional properties 'replicaCount'":      {"--set", "replicaCount=2"},
		"values don't meet the specifications":      {"--set", "doors.proxy.port=http"},
	}
	for want, set := range rows {
		t.Run(want, func(t *testing.T) {
			_, err := helm(t, append([]string{"-f", root + "/charts/stepward/ci/gateway.yaml"}, set...)...)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAChangedPolicyRestartsNothing(t *testing.T) {
	pods := func(set ...string) string {
		t.Helper()
		out, err := helm(t, append([]string{"-f", root + "/charts/stepward/ci/fleet.yaml"}, set...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects(t, out) {
			if o.Kind == "Deployment" {
				return o.raw
			}
		}
		t.Fatal("no Deployment")
		return ""
	}
	before := pods()
	if pods("--set-string", `policy.more\.rego=package stepward`) != before {
		t.Error("a policy file more changes the pods: they read it by themselves")
	}
	if pods("--set", "config.leeway=5s") == before {
		t.Error("a changed configuration does not restart the pods, which read it once")
	}
}

func TestKubernetesExamples(t *testing.T) {
	for _, name := range []string{"sidecar", "istio-policy"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(root + "/examples/kubernetes/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			list := objects(t, string(text))
			if len(list) == 0 {
				t.Fatal("nothing in it")
			}
			conforms(t, list)
			if name == "sidecar" {
				configIn(t, list)
			}
		})
	}
	// The provider is a part of the mesh's own configuration and is spelled by its protobuf (istio.mesh.v1alpha1).
	text, err := os.ReadFile(root + "/examples/kubernetes/istio-provider.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var mesh struct {
		ExtensionProviders []struct {
			Name string
			GRPC struct {
				Service  string
				Port     int
				Timeout  string
				FailOpen bool   `yaml:"failOpen"`
				OnError  string `yaml:"statusOnError"`
				WithBody struct {
					Max     int  `yaml:"maxRequestBytes"`
					Partial bool `yaml:"allowPartialMessage"`
				} `yaml:"includeRequestBodyInCheck"`
			} `yaml:"envoyExtAuthzGrpc"`
		} `yaml:"extensionProviders"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&mesh); err != nil {
		t.Fatal(err)
	}
	if p := mesh.ExtensionProviders; len(p) != 1 || p[0].GRPC.FailOpen || p[0].GRPC.WithBody.Partial || p[0].GRPC.Port != 9191 {
		t.Errorf("%+v", p)
	}
}
