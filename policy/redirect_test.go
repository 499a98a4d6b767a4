package policy_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// FuzzRedirectTargets looks for a target that the shipped rules take for home and a URL parser does not.
func FuzzRedirectTargets(f *testing.F) {
	for _, target := range []string{
		"https://app.example/a?b#c", "https://app.example@evil.example", "https://app.example\\@evil", "https://app.example:443/", "myapp://x", "https://[::1]:3000/",
		"https://app.example%00.evil", "https://app.example\x00", "HTTPS://app.example", "https://app.example#@evil.example/", "myapp://\\\\evil",
	} {
		f.Add(target)
	}
	fsys := fstest.MapFS{}
	for _, name := range []string{"data.yaml", "clients.rego", "environment.rego", "proof.rego", "redirect.rego", "requirement.rego"} {
		text, err := rego.FS.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		fsys[name] = &fstest.MapFile{Data: text}
	}
	fsys["data.yaml"].Data = []byte(strings.Replace(string(fsys["data.yaml"].Data), "    mfa_actions: []\n",
		"    mfa_actions: []\n    redirect_origins: [\"https://app.example\", \"https://[::1]:3000\", \"myapp://\"]\n", 1))
	e, err := policy.New(context.Background(), policy.Config{FS: fsys, EvalTimeout: time.Minute, DisableCache: true})
	if err != nil {
		f.Fatal(err)
	}
	var m policy.Match
	e.Snapshot().Match(http.MethodPost, "/api/v0/sdk/env/providers/google/initAuth", &m)
	if m.Route == nil {
		f.Fatal("no route")
	}
	home := &policy.Input{Match: &m, Body: map[string]any{"redirectUrl": "https://app.example/"}}
	if q, err := e.Snapshot().Require(context.Background(), home); err != nil || q.Deny != nil {
		f.Fatalf("home is refused: %+v, %v", q, err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		for name, in := range map[string]*policy.Input{
			"body":   {Match: &m, Body: map[string]any{"redirectUrl": target}},
			"state":  {Match: &m, Body: map[string]any{"state": "s_client-redirect:" + target}},
			"query":  {Match: &m, RawQuery: "redirect_uri=" + url.QueryEscape(target)},
			"origin": {Match: &m, Header: http.Header{"Origin": {target}}},
		} {
			q, err := e.Snapshot().Require(context.Background(), in)
			if err != nil || q.Deny != nil { // an error is a refusal
				continue
			}
			u, err := url.Parse(target)
			if err != nil || u.User != nil || u.Scheme != "myapp" && u.Scheme+"://"+u.Host != "https://app.example" && u.Scheme+"://"+u.Host != "https://[::1]:3000" {
				t.Errorf("%s: %q is taken for home, and is %+v, %v", name, target, u, err)
			}
		}
	})
}
