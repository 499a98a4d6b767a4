package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stepward/stepward/internal/testkit"
)

// inEmptyTemp gives the demo a place for its directory, and checks that it leaves nothing there.
func inEmptyTemp(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the demo leaves %v behind, %v", left, err)
		}
	})
}

// tokenText is the beginning of a JSON web token or an MFA token, or a recovery code.
var tokenText = regexp.MustCompile(`eyJ[\w-]{10,}|\bmfa_[\da-f]{8}|\b([a-z2-7]{4}-){3}[a-z2-7]{4}\b`)

func checkPrinted(t *testing.T, text string) {
	t.Helper()
	if found := tokenText.FindString(text); found != "" {
		t.Errorf("a token is printed: %s", found)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 && !strings.Contains(line, "jwks_url: ") { // an address is not broken
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestDemoOnce(t *testing.T) {
	inEmptyTemp(t)
	var stdout, stderr buffer
	if code := run([]string{"demo", "--once"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout.String(), stderr.String())
	}
	text := stdout.String()
	checkPrinted(t, text)
	rest := text
	for _, line := range []string{
		"ledger: bolt:ledger.db",
		"1. Ann signs up",
		"< 403 Forbidden",
		`< WWW-Authenticate: Bearer realm="wallet", error="insufficient_user_authentication",`,
		"< Step-Up-Challenge: code=elevated_access_token_required, kind=step_up,",
		`"code":"elevated_access_token_required"`,
		"ok the backend's count of exports is 0: it was never asked",
		`"code":"elevated_access_token_insufficient_scope"`, `"token_state":"unused"`,
		"ok the token is single-use and of scope wallet:export",
		"ok what came back decrypts to a private key, and the key signs",
		"ok the backend's count of exports is 1: this one",
		`"code":"elevated_access_token_consumed"`, `"token_state":"consumed"`,
		"ok the backend's count of exports is 1: executed exactly once",
		`"code":"elevated_access_token_insufficient_scope"`, `"token_state":"unused"`,
		"< 202 Accepted",
		`"transferred":true`,
		"session device:register",
		`"code":"device_verification_required"`,
		"ok it lists her wallet",
		"ok the phone's session is over",
		"A code in an SMS:", "/smsVerifications/verify", "ok the backend's count of exports is 1",
		"The signature of a wallet", "/wallets/verify", "ok the backend's count of exports is 1",
		"A social account", "/providers/google/verify", "ok the backend's count of exports is 1",
		"The word of the wallet's own backend", "/externalAuth/verify", "ok the backend's count of exports is 1",
		"A passkey", "/users/mfa/auth/passkey", "ok the backend's count of exports is 1",
		"A recovery code", "/users/mfa/auth/recovery", "ok the backend's count of exports is 2",
		"14. An environment below 2026_04_01", "< 200 OK",
		`"code":"mfa_token_required"`, `"mfaToken":<MFA token>`, `"code":"mfa_token_consumed"`,
		"ok the backend's count of exports is 2: one without MFA, one with it",
		`"reason":"elevated_access_token_consumed"`,
		"All 15 steps went as they should.",
	} {
		_, after, found := strings.Cut(rest, line)
		if !found {
			t.Fatalf("%q is missing, or at the wrong place, in\n%s", line, text)
		}
		rest = after
	}
	if strings.Contains(text, "\x1b") || stderr.String() != "" {
		t.Errorf("colours in what is no terminal, or talk: %q", stderr.String())
	}
}

func TestDemoExitsWith1WhenAnAnswerIsWrong(t *testing.T) {
	inEmptyTemp(t)
	door := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // 200 to everything
	defer door.Close()
	var stdout, stderr buffer
	demo := verb{name: "demo", do: func(ctx context.Context, c *call) error {
		p, err := newPlayground(ctx, c.stdout, false)
		if err != nil {
			return err
		}
		p.story.Door = door.URL
		return p.perform(ctx, true, c.stderr)
	}}
	if code := demo.run(nil, &stdout, &stderr); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if !strings.Contains(stdout.String(), "WRONG expected") || !strings.Contains(stderr.String(), "stepward: demo: step 1, ") {
		t.Errorf("got %s\n%s", stdout.String(), stderr.String())
	}
}

// commandLines are the indented lines of the invitation.
func commandLines(text string) string {
	_, invitation, _ := strings.Cut(text, "Now you.")
	var lines strings.Builder
	for line := range strings.Lines(invitation) {
		if strings.HasPrefix(line, "  ") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// invited runs the demo up to its invitation, which it returns, and ends it with the test.
func invited(t *testing.T) string {
	t.Helper()
	inEmptyTemp(t)
	var stdout, stderr buffer
	c := &call{args: []string{"--no-color"}, flags: flag.NewFlagSet("demo", flag.ContinueOnError), stdout: &stdout, stderr: &stderr}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- demoVerb(ctx, c) }()
	t.Cleanup(func() {
		interrupt()
		if err := <-ended; err != nil {
			t.Errorf("the end: %v", err)
		}
	})
	(&world{t: t}).eventually("the demo invites", func() bool { return strings.Contains(stdout.String(), "Ctrl-C ends") })
	checkPrinted(t, stdout.String())
	return stdout.String()
}

// TestTheDemosPage goes by hand, in a real Chromium, through what the page offers: test/browser/demo.mjs.
func TestTheDemosPage(t *testing.T) {
	testkit.Part(t, "/usr/bin/chromium")
	node := testkit.Part(t, "node")
	driver := must(filepath.Abs("../../test/browser/demo.mjs"))
	testkit.Part(t, filepath.Join(filepath.Dir(driver), "node_modules/playwright-core"))
	page := regexp.MustCompile(`http://localhost:\d+`).FindString(invited(t))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, driver, page)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	steps := 0
	for line := range strings.Lines(string(out)) {
		var said struct {
			Step, Failed, Page string
			Wire               []string
		}
		switch err := json.Unmarshal([]byte(line), &said); {
		case err != nil:
			t.Errorf("the driver says %q", line)
		case said.Failed != "":
			t.Errorf("%s\non the page:\n%s\nlast requests:\n  %s", said.Failed, said.Page, strings.Join(said.Wire, "\n  "))
		default:
			steps++
			t.Log(said.Step)
		}
	}
	if err != nil && !t.Failed() || steps != 9 {
		t.Errorf("%d steps, %v", steps, err)
	}
}

func TestTheCommandsThatTheDemoPrintsWorkAsPasted(t *testing.T) {
	for _, program := range []string{"sh", "curl", "sed", "grep"} {
		testkit.Part(t, program)
	}
	text := invited(t)
	shell := exec.Command("sh", "-eu")
	shell.Stdin = strings.NewReader(commandLines(text))
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for _, want := range []string{
		"HTTP/1.1 200 OK",
		"HTTP/1.1 403 Forbidden", `"code":"elevated_access_token_required"`,
		"HTTP/1.1 200 OK", `"encryptedPrivateKey"`,
		"HTTP/1.1 403 Forbidden", `"code":"device_verification_required"`,
		`"ready": true`,
		`stepward_decisions_total{operation="wallet.export",outcome="refuse",reason="elevated_access_token_consumed"} 5`,
		`"reason":"device_verification_required"`,
		"ledger: bolt:ledger.db",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("%q is missing, or at the wrong place, in\n%s", want, out)
		}
		rest = after
	}
	statuses := map[string]int{}
	for line := range strings.Lines(string(out)) {
		statuses[strings.TrimSpace(line)]++
	}
	if statuses["200"] != 1 || statuses["403"] != 4 {
		t.Errorf("of five at once %d got through and %d did not", statuses["200"], statuses["403"])
	}
}

func TestTheExampleConfigurationIsGood(t *testing.T) {
	var stdout, stderr buffer
	if code := run([]string{"check", "--offline", "--config", "../../examples/stepward.yaml"}, &stdout, &stderr); code != exitOK {
		t.Errorf("exit code %d: %s", code, stdout.String())
	}
	if stderr.String() != "" {
		t.Errorf("got %s", stderr.String())
	}
}
