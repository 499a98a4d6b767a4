package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stepward/stepward/examples/backend"
)

const bob = "bob@wallet.example"

// ScriptName is the file that Invite writes.
const ScriptName = "try.sh"

// Invite signs somebody else up, writes what a shell needs to go on as that user to try.sh in dir, and prints commands that
// work as pasted. The file holds tokens; what is printed does not.
func Invite(ctx context.Context, cfg Config, dir string) error {
	s := newStory(ctx, cfg)
	var script string
	if err := s.quietly(func() (err error) {
		script, err = s.script(dir)
		return err
	}); err != nil {
		return fmt.Errorf("prepare commands: %w", err)
	}
	path := filepath.Join(dir, ScriptName)
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cfg.Out, invitation, cfg.Site, path)
	return err
}

// script is a shell script that only sets variables and functions.
func (s *story) script(dir string) (string, error) {
	b := &browser{name: "curl", home: s.cfg.Environment}
	proof, err := s.mailedCode(b, bob)
	if err != nil {
		return "", err
	}
	a, err := s.call(b, request{method: "POST", path: "/emailVerifications/signin", body: proof}, ok())
	if err != nil {
		return "", err
	}
	b.session = a.body.text("jwt")
	if a, err = s.call(b, request{method: "POST", path: "/waas/create", body: object{}}, ok()); err != nil {
		return "", err
	}
	key, err := backend.NewExportKey()
	if err != nil {
		return "", err
	}
	return strings.NewReplacer(
		"@DIR", dir, "@DOOR", s.cfg.Door+b.home.prefix(), "@ADMIN", s.cfg.Admin, "@SESSION", b.session, "@WALLET", a.body.text("walletId"),
		"@EXPORT", key.ID(), "@CODE", s.cfg.Code, "@BOB", bob,
	).Replace(script), nil
}

const script = `# Made by stepward demo, for sh and its kin. Only names are set here: read it with . in front.
DIR='@DIR'
DOOR=@DOOR
ADMIN=@ADMIN
WALLET=@WALLET
SESSION=@SESSION
BOB="Authorization: Bearer $SESSION"
EXPORT='{"exportId":"@EXPORT"}' # a public key that the private one is encrypted to
JSON='Content-Type: application/json'

member() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p'; }

# mailed EMAIL has a code mailed and prints what proves it. Every code of this demo is @CODE.
mailed() {
  mailed_id=$(curl -s "$DOOR/emailVerifications/create" -H "$JSON" -d '{"email":"'"$1"'"}' | member verificationUUID)
  echo '"verificationUUID":"'"$mailed_id"'","verificationToken":"@CODE"'
}

# signin EMAIL prints a session token. A known user on a device that is not gets one that may only register the device.
signin() { curl -s "$DOOR/emailVerifications/signin" -H "$JSON" -d "{$(mailed "$1")}" | member jwt; }

# stepup SCOPE prints an elevated access token of Bob's, for a mailed code.
stepup() {
  curl -s "$DOOR/emailVerifications/verify" -H "$BOB" -H "$JSON" \
    -d "{$(mailed @BOB),\"requestedScopes\":[\"$1\"]}" | member elevatedAccessToken
}
`

const invitation = `
Now you. Everything keeps running. By hand, in a browser on this machine, with both environments,
every way to verify, a second device, and each challenge as it comes: %s

Or in another terminal, where this sets what the commands below use:

  . %s

The session of Bob is good:

  curl -iw '\n' "$DOOR/users" -H "$BOB"

The private key, with a session alone; then with a step-up. Repeat the last line: the token is
spent.

  curl -iw '\n' "$DOOR/waas/$WALLET/privateKey/export" -H "$BOB" -d "$EXPORT"
  ELEVATED="x-dyn-elevated-access-token: $(stepup wallet:export)"
  curl -iw '\n' "$DOOR/waas/$WALLET/privateKey/export" -H "$BOB" -H "$ELEVATED" -d "$EXPORT"

Five at once with one token, of which one gets through:

  ELEVATED="x-dyn-elevated-access-token: $(stepup wallet:export)"
  (for i in 1 2 3 4 5; do
    curl -so /dev/null -w '%%{http_code}\n' "$DOOR/waas/$WALLET/privateKey/export" \
      -H "$BOB" -H "$ELEVATED" -d "$EXPORT" &
  done; wait)

A session of Bob on a device that nobody knows:

  curl -iw '\n' "$DOOR/users" -H "Authorization: Bearer $(signin bob@wallet.example)"

Stepward itself: whether it is ready, what it counted, what it wrote down last, what it was told.

  curl -s "$ADMIN/readyz"
  curl -s "$ADMIN/metrics" | grep ^stepward_decisions_total
  tail -n 1 "$DIR/decisions.jsonl"
  cat "$DIR/stepward.yaml"

Ctrl-C ends the demo and removes its files.
`
