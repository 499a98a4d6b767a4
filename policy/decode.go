package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
)

// maxText is how many bytes the texts of one requirement may have together: the cache holds thousands of them, and a rule
// may quote the request.
const maxText = 8 << 10

// decode reads the policy's answer strictly: an unknown member, a wrong type or an absent operation or session is an
// error, and so is a requirement that contradicts itself.
func decode(plain any) (*Requirement, error) {
	members, ok := plain.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("requirement is not an object")
	}
	d := newDecoder()
	for name, v := range members {
		d.member(name, v)
	}
	if len(d.faults) == 0 {
		d.whole()
	}
	switch {
	case len(d.faults) > 0:
		return nil, d.err()
	case d.size > maxText:
		return nil, fmt.Errorf("requirement has %d bytes of text, more than %d", d.size, maxText)
	}
	return d.q, nil
}

type decoder struct {
	q       *Requirement
	faults  map[string]string // what is wanted instead, by member
	size    int               // bytes of text so far
	session bool              // the member session was there
	device  bool
	exempts bool // mfa_required is absent or false
}

func newDecoder() *decoder { return &decoder{q: &Requirement{}, exempts: true} }

// fail keeps the first word on each member.
func (d *decoder) fail(name, want string) {
	if d.faults == nil {
		d.faults = map[string]string{}
	}
	if d.faults[name] == "" {
		d.faults[name] = want
	}
}

// err names every fault, in one order, so that the same policy always reads alike.
func (d *decoder) err() error {
	faults := make([]string, 0, len(d.faults))
	for _, name := range slices.Sorted(maps.Keys(d.faults)) {
		faults = append(faults, "requirement."+name+": want "+d.faults[name])
	}
	return errors.New(strings.Join(faults, ", "))
}

func (d *decoder) member(name string, v any) {
	switch name {
	case "operation":
		d.q.Operation = d.text(name, v)
		if !isName(d.q.Operation) {
			d.fail(name, "a name such as wallet.export")
		}
	case "session":
		d.q.Session, d.session = v.(bool)
		if !d.session {
			d.fail(name, "true or false")
		}
	case "scopes":
		d.q.Scopes = d.scopes(v)
	case "token":
		d.q.Token = TokenUse(d.text(name, v))
		if d.q.Token != SingleUse && d.q.Token != TimeBound {
			d.fail(name, "single_use or time_bound")
		}
	case "max_age":
		if s := d.whole64(name, v, maxMaxAge); s == 0 {
			d.fail(name, "1 to 86400 seconds")
		} else {
			d.q.MaxAge = time.Duration(s) * time.Second
		}
	case "device":
		d.device = true
		switch d.text(name, v) {
		case "registered":
		case "any":
			d.q.Device = DeviceAny
		default:
			d.fail(name, "registered or any")
		}
	case "minimum_api_version":
		version, err := apiversion.Parse(d.text(name, v))
		if d.q.MinimumAPIVersion = version; err != nil {
			d.fail(name, "a dated version such as 2026_04_01")
		}
	case "minimum_sdk":
		d.q.MinimumSDK = d.releases(name, v)
	case "advise_sdk":
		d.q.AdviseSDK = d.releases(name, v)
	case "announced":
		d.q.Announced = d.announced(v)
	case "mfa_action":
		if d.q.MFAAction = d.text(name, v); !isName(d.q.MFAAction) {
			d.fail(name, "a name such as wallet.waas.sign")
		}
	case "mfa_required":
		required, ok := v.(bool)
		if d.exempts = !required; !ok {
			d.fail(name, "true or false")
		}
	case "methods":
		d.q.Methods = d.texts(name, v)
	case "release_on":
		d.q.ReleaseOn = d.statuses(v)
	case "deny":
		d.q.Deny = d.deny(v)
	case "device_proof":
		d.q.DeviceProof = d.boolean(name, v)
	case "recheck":
		d.q.Recheck = d.boolean(name, v)
	default:
		d.fail(name, "no such member (see docs/writing-policy.md)")
	}
}

// whole checks what no member can see alone.
func (d *decoder) whole() {
	switch q := d.q; {
	case q.Operation == "":
		d.fail("operation", "a name; it must be present")
	case !d.session:
		d.fail("session", "true or false; it must be present")
	default:
		d.alone()
	}
	if !d.q.Session && !d.device {
		d.q.Device = DeviceAny
	}
	d.q.UnenrolledPass = d.q.MFAAction != "" && d.exempts
}

// alone refuses demands that nobody can meet: a token needs somebody to belong to.
func (d *decoder) alone() {
	switch q := d.q; {
	case !q.Session && len(q.Scopes) > 0:
		d.fail("scopes", "session: true beside scopes")
	case !q.Session && q.Token != AnyUse:
		d.fail("token", "session: true beside token")
	case !q.Session && q.MFAAction != "":
		d.fail("mfa_action", "session: true beside mfa_action")
	case !q.Session && d.device && q.Device == DeviceRegistered:
		d.fail("device", "session: true beside device: registered")
	case !q.Session && q.Recheck:
		d.fail("recheck", "session: true beside recheck")
	case !q.Session && q.DeviceProof:
		// Anybody can make and sign nonces, and each that is spent takes room in the ledger.
		d.fail("device_proof", "session: true beside device_proof")
	case len(q.Scopes) == 0 && q.Token != AnyUse:
		d.fail("token", "scopes beside token")
	case q.MFAAction == "" && !d.exempts:
		d.fail("mfa_required", "mfa_action beside mfa_required")
	}
}

func (d *decoder) text(name string, v any) string {
	s, ok := v.(string)
	if !ok {
		d.fail(name, "text")
	}
	d.size += len(s)
	return s
}

func (d *decoder) boolean(name string, v any) bool {
	b, ok := v.(bool)
	if !ok {
		d.fail(name, "true or false")
	}
	return b
}

func (d *decoder) list(name string, v any) []any {
	list, ok := v.([]any)
	if !ok {
		d.fail(name, "a list")
	}
	if len(list) > 64 {
		d.fail(name, "at most 64 members")
		return nil
	}
	return list
}

func (d *decoder) texts(name string, v any) []string {
	var out []string
	for _, item := range d.list(name, v) {
		out = append(out, d.text(name, item))
	}
	return out
}

func (d *decoder) scopes(v any) []Choice {
	var out []Choice
	for _, item := range d.list("scopes", v) {
		choice := Choice{}
		if _, nested := item.([]any); nested {
			choice = d.texts("scopes", item)
		} else {
			choice = append(choice, d.text("scopes", item))
		}
		if len(choice) == 0 || slices.ContainsFunc(choice, func(s string) bool { return !isScope(s) }) {
			d.fail("scopes", "scope tokens (RFC 6749 section 3.3), or non-empty lists of them")
		}
		out = append(out, choice)
	}
	return out
}

// isScope reports whether s is a scope-token of RFC 6749 section 3.3: NQCHAR, no spaces, quotes or backslashes.
func isScope(s string) bool {
	for _, c := range []byte(s) {
		if c <= 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func (d *decoder) releases(name string, v any) map[string]apiversion.Release {
	members, ok := v.(map[string]any)
	if !ok || len(members) > 64 {
		d.fail(name, "an object of SDK names and releases")
		return nil
	}
	out := map[string]apiversion.Release{}
	for _, sdk := range slices.Sorted(maps.Keys(members)) {
		d.size += len(sdk)
		r, err := apiversion.ParseRelease(d.text(name, members[sdk]))
		if err != nil {
			d.fail(name, "releases such as 4.76.0")
		}
		out[sdk] = r
	}
	return out
}

func (d *decoder) whole64(name string, v any, most int64) int64 {
	n, ok := v.(json.Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if !ok || err != nil || i < 0 || i > most {
		d.fail(name, "a whole number up to "+strconv.FormatInt(most, 10))
		return 0
	}
	return i
}

func (d *decoder) statuses(v any) []int {
	var out []int
	for _, item := range d.list("release_on", v) {
		status := d.whole64("release_on", item, 499)
		if status < 200 {
			d.fail("release_on", "statuses from 200 to 499: a 5xx says nothing about what was done")
		}
		out = append(out, int(status))
	}
	return out
}

func (d *decoder) deny(v any) *Denial {
	members, ok := v.(map[string]any)
	if !ok {
		d.fail("deny", "an object with code and message")
		return &Denial{}
	}
	out := &Denial{}
	for name, value := range members {
		switch name {
		case "code":
			out.Code = d.text("deny.code", value)
		case "message":
			out.Message = d.text("deny.message", value)
		default:
			d.fail("deny."+name, "code and message, and no other member")
		}
	}
	if !isName(out.Code) {
		d.fail("deny.code", "a name such as region_blocked")
	}
	return out
}
