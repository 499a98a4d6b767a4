package policy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/stepward/stepward/internal/apiversion"
)

// operations checks what the operations of the data say. Their members are fixed, as those of environments are, because a
// misspelt one is a demand that nobody makes.
func (l *dataLoader) operations(n *yaml.Node) {
	if !l.mapping(n, "operations") {
		return
	}
	l.out.operations, l.actions = map[string]bool{}, map[string]bool{}
	for k, v := range pairs(n) {
		field := below("operations", k.Value)
		l.out.operations[k.Value] = true
		if !isName(k.Value) {
			l.fault(k, field, "is not a name", "write letters, digits, dots, dashes and underscores, such as wallet.export")
		}
		if l.mapping(v, field) {
			l.operation(v, field)
		}
	}
}

func (l *dataLoader) operation(n *yaml.Node, field string) {
	d := newDecoder()
	d.q.Session = true // what the shipped rules take an absent member for
	at := map[string]*yaml.Node{}
	for k, v := range pairs(n) {
		switch k.Value {
		case "always", "by_default", "form", "redirects":
			l.boolean(v, below(field, k.Value))
		case "options":
		case "scopes", "token", "max_age", "device", "mfa_action", "release_on", "session", "deny", "recheck":
			at[k.Value] = v
			d.member(k.Value, quiet(v))
			l.actions[d.q.MFAAction] = true
		default:
			l.fault(k, below(field, k.Value), "is not a member of an operation", "use always, by_default, scopes, token, max_age, "+
				"device, mfa_action, release_on, session, form, deny, recheck, redirects, or options for members of your own")
		}
	}
	if len(d.faults) == 0 {
		if d.alone(); at["max_age"] != nil && len(d.q.Scopes) == 0 {
			d.fail("max_age", "scopes beside max_age")
		}
		if d.q.Deny != nil && (len(d.q.Scopes) > 0 || d.q.MFAAction != "") {
			d.fail("deny", "either deny or what is to be brought")
		}
		for _, choice := range d.q.Scopes {
			for _, scope := range choice {
				l.out.scopes = append(l.out.scopes, writtenScope{scope, below(field, "scopes"), at["scopes"].Line})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.faults)) {
		member, part, nested := strings.Cut(name, ".") // deny.code stands in deny
		where := below(field, member)
		if nested {
			where = below(where, part)
		}
		l.fault(at[member], where, "is not right", "write "+d.faults[name])
	}
}

// byBody checks the operations that the body decides. One that is lost leaves its routes without an answer, so only what
// would open them needs a word: a name that is an operation as well, and lists that nobody keeps.
func (l *dataLoader) byBody(root, n *yaml.Node) {
	if !l.mapping(n, "by_body") {
		return
	}
	l.out.byBody = map[string]bool{}
	for k, v := range pairs(n) {
		field := below("by_body", k.Value)
		l.out.byBody[k.Value] = true
		if l.out.operations[k.Value] {
			l.fault(k, field, "is one of the operations too", "give one of them another name")
		}
		if l.mapping(v, field) {
			l.roles(k, v, field)
		}
	}
	if len(n.Content) > 0 && l.out.all["requested_scopes"] == nil {
		l.fault(root, "requested_scopes", "is missing beside by_body", `write {allow: ["*"], refuse: ["console:*"]}: nothing may be asked for without it`)
	}
}

func (l *dataLoader) roles(k, n *yaml.Node, field string) {
	complete := false
	for mk, mv := range pairs(n) {
		at := below(field, mk.Value)
		switch mk.Value {
		case "otherwise", "requests_scopes", "business_account":
			complete = complete || mk.Value == "otherwise"
			if name, ok := text(mv); !ok || !isName(name) || l.out.operations != nil && !l.out.operations[name] {
				l.fault(mv, at, "is no operation", "write one of the members of operations")
			}
		default:
			l.fault(mk, at, "is not a member of by_body", "use otherwise, requests_scopes or business_account")
		}
	}
	if !complete {
		l.fault(k, field, "has no otherwise", "name the operation that it is when nothing else holds")
	}
}

// requestable checks the lists of scopes that may be asked for. whole says that both must be there.
func (l *dataLoader) requestable(n *yaml.Node, field string, whole bool) {
	if !l.mapping(n, field) {
		return
	}
	there := map[string]bool{}
	for k, v := range pairs(n) {
		at := below(field, k.Value)
		there[k.Value] = true
		switch {
		case k.Value != "allow" && k.Value != "refuse":
			l.fault(k, at, "is not a list of scopes that may be asked for", "use allow or refuse")
		case v.Kind != yaml.SequenceNode:
			l.fault(v, at, "is not a list", `write a list such as ["wallet:sign", "credential:*"]`)
		default:
			l.requestableIn(v, at)
		}
	}
	for _, list := range []string{"allow", "refuse"} {
		if whole && !there[list] {
			l.fault(n, below(field, list), "is missing", "write a list, [] for none")
		}
	}
}

func (l *dataLoader) requestableIn(n *yaml.Node, field string) {
	for i, item := range n.Content {
		name, ok := text(item)
		if beginning := strings.TrimSuffix(name, "*"); !ok || strings.ContainsAny(beginning, "*,") || name != "*" && !isScope(beginning) {
			l.fault(item, fmt.Sprintf("%s[%d]", field, i), "is neither a scope nor the beginning of some", `write it as "wallet:sign", "wallet:*" or "*"`)
		}
	}
}

// quiet is the value of a node whose faults have been reported.
func quiet(n *yaml.Node) any { return (&dataLoader{out: &data{}}).plain(n, "") }

func (l *dataLoader) environments(n *yaml.Node) {
	if !l.mapping(n, "environments") {
		return
	}
	// As in Rego, a listed environment has the default's members where it does not set its own.
	for k, v := range pairs(n) {
		if k.Value == "default" {
			l.environment(k, v, Environment{})
		}
	}
	for k, v := range pairs(n) {
		if k.Value != "default" {
			l.environment(k, v, l.out.environments["default"])
		}
	}
}

func (l *dataLoader) environment(k, v *yaml.Node, e Environment) {
	field := below("environments", k.Value)
	if !l.mapping(v, field) {
		return
	}
	for mk, mv := range pairs(v) {
		l.environmentMember(&e, mk, mv, below(field, mk.Value))
	}
	l.announced(v, field, e.minimum)
	l.out.environments[k.Value], l.out.imitable[foldID(k.Value)] = e, true
}

// foldID is equal for ids that strings.EqualFold calls equal. It allocates nothing for what is ASCII in lower case.
func foldID(id string) string {
	for i := range len(id) {
		if id[i] >= utf8.RuneSelf {
			return strings.ToLower(strings.ToUpper(id)) // lower case alone leaves U+017F and U+212A as they are
		}
	}
	return strings.ToLower(id)
}

// environmentMember checks the members that Go reads or that the shipped rules know.
func (l *dataLoader) environmentMember(e *Environment, k, v *yaml.Node, field string) {
	switch k.Value {
	case "mode":
		if v.Value != "enforce" && v.Value != "shadow" {
			l.fault(v, field, "is neither enforce nor shadow", "write mode: enforce or mode: shadow")
		}
		e.Shadow = v.Value == "shadow"
	case "device_proof":
		l.operationsIn(v, field)
	case "redirect_origins":
		l.redirectOrigins(v, field)
	case "locked":
		e.Locked = l.boolean(v, field)
	case "device_registration", "device_cookie":
		l.boolean(v, field)
	case "minimum_api_version":
		version, ok := text(v)
		minimum, err := apiversion.Parse(version)
		if e.minimum = minimum; !ok || err != nil {
			l.fault(v, field, "is not a dated version", `write it as "2026_04_01", in quotes`)
		}
	case "mfa_actions":
		l.actionsIn(v, field)
	case "mfa_required":
		l.boolean(v, field)
	case "step_up", "max_age", "token":
		l.overrides(k.Value, v, field)
	case "minimum_sdk":
		l.releases(v, field)
	case "sdk_minimums":
		l.sdkMinimums(v, field)
	case "announced": // checked once the environment's own version is known
	case "requested_scopes":
		l.requestable(v, field, false)
	case "options":
	default:
		l.fault(k, field, "is not a member of an environment",
			"use mode, locked, minimum_api_version, mfa_actions, mfa_required, step_up, max_age, token, minimum_sdk, sdk_minimums, announced, requested_scopes, device_registration, device_cookie, device_proof, redirect_origins, or options for members of your own")
	}
}

// operationsIn checks a list of operations.
func (l *dataLoader) operationsIn(v *yaml.Node, field string) {
	if v.Kind != yaml.SequenceNode {
		l.fault(v, field, "is not a list", "write a list such as [device.register, device.revoke]")
		return
	}
	for i, item := range v.Content {
		if name, ok := text(item); !ok || l.out.operations != nil && !l.out.operations[name] {
			l.fault(item, fmt.Sprintf("%s[%d]", field, i), "is no operation", "write one of the members of operations")
		}
	}
}

// redirectOrigins checks a list of origins as the rules compare them: letter by letter.
func (l *dataLoader) redirectOrigins(v *yaml.Node, field string) {
	if v.Kind != yaml.SequenceNode {
		l.fault(v, field, "is not a list", `write a list such as ["https://app.example", "myapp://"]`)
		return
	}
	for i, item := range v.Content {
		if origin, ok := text(item); !ok || !isOrigin(origin) {
			l.fault(item, fmt.Sprintf("%s[%d]", field, i), "is neither a web origin nor an app's own scheme",
				`write it as a browser does, such as "https://app.example" or "http://localhost:3000", or as "myapp://"`)
		}
	}
}

// isOrigin accepts the serialisation of a web origin (RFC 6454 section 6.2), and the scheme of an app: one that browsers give
// no meaning of its own.
func isOrigin(s string) bool {
	if scheme, ok := strings.CutSuffix(s, "://"); ok {
		return appScheme.MatchString(scheme) && !slices.Contains(browserSchemes, scheme)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || s != u.Scheme+"://"+u.Host || !webHost.MatchString(u.Hostname()) {
		return false
	}
	switch port := u.Port(); {
	case port == "":
		return !strings.HasSuffix(u.Host, ":")
	case port[0] == '0', u.Scheme == "http" && port == "80", u.Scheme == "https" && port == "443":
		return false
	}
	return true
}

var (
	appScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`) // RFC 3986 section 3.1, in lower case
	webHost   = regexp.MustCompile(`^([a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*|[0-9a-f:]*:[0-9a-f:.]*)$`)
	// What these name is not an app, or is code.
	browserSchemes = []string{"about", "blob", "content", "data", "file", "filesystem", "ftp", "http", "https", "intent", "javascript", "vbscript", "view-source", "ws", "wss"}
)

func (l *dataLoader) releases(v *yaml.Node, field string) {
	if !l.mapping(v, field) {
		return
	}
	for k, r := range pairs(v) {
		l.sdk(k, below(field, k.Value), k.Value)
		release, ok := text(r)
		if _, err := apiversion.ParseRelease(release); !ok || err != nil {
			l.fault(r, below(field, k.Value), "is not a release", `write it as "4.76.0", in quotes`)
		}
	}
}

func (l *dataLoader) actionsIn(v *yaml.Node, field string) {
	if v.Kind != yaml.SequenceNode {
		l.fault(v, field, "is not a list", "write a list such as [wallet.waas.export]")
		return
	}
	for i, item := range v.Content {
		at := fmt.Sprintf("%s[%d]", field, i)
		if name, ok := text(item); !ok || l.actions != nil && !l.actions[name] {
			l.fault(item, at, fmt.Sprintf("%q is no operation's mfa_action", item.Value), "write one of "+known(l.actions))
		}
	}
}

// overrides checks what an environment says of single operations.
func (l *dataLoader) overrides(member string, v *yaml.Node, field string) {
	if !l.mapping(v, field) {
		return
	}
	for k, value := range pairs(v) {
		at := below(field, k.Value)
		if l.out.operations != nil && !l.out.operations[k.Value] {
			l.fault(k, at, "is no operation", "write one of the members of operations")
		}
		if member == "step_up" {
			l.boolean(value, at)
			continue
		}
		d := newDecoder()
		if d.member(member, quiet(value)); d.faults[member] != "" {
			l.fault(value, at, "is not right", "write "+d.faults[member])
		}
	}
}

func known(names map[string]bool) string {
	list := slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(s string) bool { return s == "" })
	if len(list) == 0 {
		return "none: no operation has one"
	}
	return strings.Join(list, ", ")
}
