package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// maxProbes bounds how many questions a load may cost. Beyond it the rest of the environments is not asked about; their
// answers are decoded as strictly when a request comes.
const maxProbes = 20_000

// probe asks the policy about every route in every environment of its data and in ones that it has never heard of, with and
// without a session, before it is put in force. What it finds would otherwise be a refusal in production. Every route is
// asked about in one environment before the next one, so that many environments leave no route unasked. Answers are
// remembered as those of requests are, so routes that share an operation cost one evaluation.
func (s *Snapshot) probe(ctx context.Context) Problems {
	environments := slices.Sorted(maps.Keys(s.data.environments))
	environments = append([]string{"", "00000000-0000-4000-8000-000000000000"}, environments...)
	s.asksMFA = map[string]bool{}
	faulty := map[*Route]string{}
	var messages []string
	var problems Problems
	asked := 0
environments:
	for i, id := range environments {
		for _, r := range s.table.routes {
			if faulty[r] != "" {
				continue
			}
			if asked += 2; i > 0 && asked > maxProbes {
				break
			}
			message, late := s.ask(ctx, r, id)
			switch {
			case late: // all others would take as long
				problems = append(problems, s.data.problem(r, message, "make the policy faster, or raise policy.eval_timeout"))
				break environments
			case message != "":
				faulty[r] = message
				messages = append(messages, message)
			}
		}
	}
	slices.Sort(messages)
	for _, message := range slices.Compact(messages) {
		problems = append(problems, s.refused(message, faulty)...)
	}
	return problems
}

// manyRoutes is how many routes are named that fail alike; a forgotten default would otherwise fill screens.
const manyRoutes = 5

func (s *Snapshot) refused(message string, faulty map[*Route]string) Problems {
	var problems Problems
	more := 0
	for _, r := range s.table.routes {
		if faulty[r] != message {
			continue
		}
		if len(problems) == manyRoutes {
			more++
			continue
		}
		problems = append(problems, s.data.problem(r, message, s.remedy(r)))
	}
	if more > 0 {
		problems[len(problems)-1].Message += fmt.Sprintf(" (and so for %d more routes)", more)
	}
	return problems
}

func (s *Snapshot) remedy(r *Route) string {
	if s.data.operations != nil && !s.data.operations[r.Operation] {
		return fmt.Sprintf("add %q to operations, or write the name of one that is there", r.Operation)
	}
	return "make data.stepward.requirement answer for this operation in this environment"
}

// attempts are how often the probe asks before it calls an answer late: a machine may be busy with starting.
const attempts = 3

func (s *Snapshot) requireInTime(ctx context.Context, in *Input) (q *Requirement, message string, late bool) {
	for range attempts {
		q, err := s.Require(ctx, in)
		switch {
		case err == nil:
			return q, "", false
		case !isLate(err) || ctx.Err() != nil: // or nobody waits any more
			return nil, inFull(err), false
		}
	}
	return nil, fmt.Sprintf("policy: no answer within %s, asked %d times", s.timeout, attempts), true
}

// ask returns what is wrong with the answers for a route in an environment, and whether it is that they take too long.
func (s *Snapshot) ask(ctx context.Context, r *Route, environment string) (message string, late bool) {
	m := Match{Route: r}
	p, err := parsePattern(r.Pattern)
	if err != nil {
		return err.Error(), false
	}
	for _, seg := range p.segments {
		if seg.kind == wildSegment || seg.kind == restSegment {
			m.Params = append(m.Params, Param{seg.text, "probe"})
		}
	}
	in := &Input{Match: &m, Method: r.Method, Path: "/probe", Host: "probe.invalid", Environment: environment}
	if in.Method == "" {
		in.Method = "GET"
	}
	in.Device.State = DeviceUnknown
	if _, message, late := s.requireInTime(ctx, in); message != "" {
		return fmt.Sprintf("environment %q, without a session: %s", environment, message), late
	}
	in.Device.State = Registered
	in.Session = map[string]any{
		"sub": "probe", "scope": "user:basic", "environment_id": environment, "iss": "probe.invalid/" + environment, "sid": "probe",
		"iat": json.Number("1767225600"), "exp": json.Number("1767229200"),
	}
	q, message, late := s.requireInTime(ctx, in)
	if message != "" {
		return fmt.Sprintf("environment %q, with a session: %s", environment, message), late
	}
	if q.MFAAction != "" {
		s.asksMFA[environment] = true
	}
	return "", false
}
