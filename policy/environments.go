package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
		case "always", "form":
			l.boolean(v, below(field, k.Value))
		case "options":
		case "scopes", "token", "max_age", "device", "mfa_action", "release_on", "session":
			at[k.Value] = v
			d.member(k.Value, quiet(v))
			l.actions[d.q.MFAAction] = true
		default:
			l.fault(k, below(field, k.Value), "is not a member of an operation", "use always, scopes, token, max_age, device, "+
				"mfa_action, release_on, session, form, or options for members of your own")
		}
	}
	if len(d.faults) == 0 {
		d.alone()
		for _, choice := range d.q.Scopes {
			for _, scope := range choice {
				l.out.scopes = append(l.out.scopes, writtenScope{scope, below(field, "scopes"), at["scopes"].Line})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.faults)) {
		l.fault(at[name], below(field, name), "is not right", "write "+d.faults[name])
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
	l.out.environments[k.Value] = e
}

// environmentMember checks the members that Go reads or that the shipped rules know.
func (l *dataLoader) environmentMember(e *Environment, k, v *yaml.Node, field string) {
	switch k.Value {
	case "mode":
		if v.Value != "enforce" && v.Value != "shadow" {
			l.fault(v, field, "is neither enforce nor shadow", "write mode: enforce or mode: shadow")
		}
		e.Shadow = v.Value == "shadow"
	case "locked":
		e.Locked = l.boolean(v, field)
	case "minimum_api_version":
		version, ok := text(v)
		if _, err := apiversion.Parse(version); !ok || err != nil {
			l.fault(v, field, "is not a dated version", `write it as "2026_04_01", in quotes`)
		}
	case "mfa_actions":
		l.actionsIn(v, field)
	case "step_up", "max_age", "token":
		l.overrides(k.Value, v, field)
	case "minimum_sdk":
		l.releases(v, field)
	case "options":
	default:
		l.fault(k, field, "is not a member of an environment",
			"use mode, locked, minimum_api_version, mfa_actions, step_up, max_age, token, minimum_sdk, or options for members of your own")
	}
}

func (l *dataLoader) releases(v *yaml.Node, field string) {
	if !l.mapping(v, field) {
		return
	}
	for k, r := range pairs(v) {
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
