package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// maxProbes bounds how many evaluations a load may cost. Beyond it the rest of the environments is not asked about; their
// answers are decoded as strictly when a request comes.
const maxProbes = 20_000

// probe asks the policy about every route in every environment of its data and in ones that it has never heard of, with and
// without a session, before it is put in force. What it finds would otherwise be a refusal in production. Every route is
// asked about in one environment before the next one, so that many environments leave no route unasked.
func (s *Snapshot) probe(ctx context.Context) Problems {
	environments := slices.Sorted(maps.Keys(s.data.environments))
	environments = append([]string{"", "00000000-0000-4000-8000-000000000000"}, environments...)
	var problems Problems
	faulty := map[*Route]bool{}
	asked := 0
	for i, id := range environments {
		for _, r := range s.table.routes {
			if faulty[r] {
				continue
			}
			if asked += 2; i > 0 && asked > maxProbes {
				return problems
			}
			if p := s.probeRoute(ctx, r, id); p != nil {
				problems = append(problems, *p)
				faulty[r] = true
			}
		}
	}
	return problems
}

func (s *Snapshot) probeRoute(ctx context.Context, r *Route, environment string) *Problem {
	m := Match{Route: r}
	p, err := parsePattern(r.Pattern)
	if err != nil {
		return &Problem{File: s.data.file, Line: s.data.lines[r.Pattern], Field: fmt.Sprintf("routes[%q]", r.Pattern), Message: err.Error()}
	}
	for _, seg := range p.segments {
		if seg.text != "" && (seg.kind == wildSegment || seg.kind == restSegment) {
			m.Params = append(m.Params, Param{seg.text, "probe"})
		}
	}
	in := &Input{Match: &m, Method: r.Method, Path: "/probe", Host: "probe.invalid", Environment: environment}
	if in.Method == "" {
		in.Method = "GET"
	}
	sessions := []map[string]any{nil, {
		"sub": "probe", "scope": "user:basic", "environment_id": environment, "iss": "probe.invalid/" + environment, "sid": "probe",
		"iat": json.Number("1767225600"), "exp": json.Number("1767229200"),
	}}
	for _, session := range sessions {
		in.Session = session
		in.Device.State = Registered
		if session == nil {
			in.Device.State = DeviceUnknown
		}
		if _, err := s.eval(ctx, in); err != nil {
			return &Problem{
				File: s.data.file, Line: s.data.lines[r.Pattern], Field: fmt.Sprintf("routes[%q]", r.Pattern),
				Message: fmt.Sprintf("environment %q, %s: %v", environment, sessionWord(session), err),
				Remedy:  "make data.stepward.requirement answer for this route: look at its operation's name and members, and at its environment",
			}
		}
	}
	return nil
}

func sessionWord(session map[string]any) string {
	if session == nil {
		return "without a session"
	}
	return "with a session"
}
