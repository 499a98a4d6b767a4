package extauthz

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// GRPC answers Envoy's ext_authz v3 (envoy.service.auth.v3.Authorization). A question that arrives gets an answer and no gRPC
// error, which Envoy would treat by its failure_mode_allow: every refusal is a denied_response with a status that is not OK.
type GRPC struct {
	*judge
	repeats *repeats // nil: none are recognised
}

// NewGRPC checks the configuration and returns the door. Requests that Envoy asks about twice (standards.md 4.5) get their first
// answer again where dedup says for how long; zero recognises none.
func NewGRPC(c Config, dedup DedupConfig) (*GRPC, error) {
	j, err := newJudge(c)
	if err != nil {
		return nil, err
	}
	return &GRPC{judge: j, repeats: newRepeats(dedup, j.Now)}, nil
}

// The keys of a route's context_extensions, by which Envoy's configuration speaks to us.
const (
	extEnvironment = "environment" // the environment of all requests of this route
	extProfile     = "profile"     // sdk or rfc9470
	extShadow      = "shadow"      // "true": a rehearsal, which never spends
)

// answer reads Envoy's question about one request by receive, and returns the CheckResponse.
func (s *GRPC) answer(ctx context.Context, receive func(*question) error) (out message, err error) {
	var c struct {
		question
		asked
	}
	q, a := &c.question, &c.asked
	defer func() {
		if p := recover(); p != nil {
			s.Log.ErrorContext(ctx, "a check ended in a panic; it is refused", "panic", p, "decision_id", a.verdict.DecisionID)
			a.verdict = gate.Verdict{Reason: reason.PolicyError, DecisionID: a.verdict.DecisionID}
			out, err = s.denied(a), nil
		}
	}()
	if err := receive(q); err != nil {
		return nil, err
	}
	from, _ := peer.FromContext(ctx)
	why := s.read(a, q)
	fingerprint, repeatable := s.repeats.fingerprint(from, q, a)
	if answer := s.repeats.find(fingerprint, repeatable && why == ""); answer != nil {
		return answer, nil
	}
	if at, ok := ctx.Deadline(); ok {
		a.request.Deadline = at
	}
	s.decide(a, why, func(r *gate.Request, v *gate.Verdict) { s.Gate.Decide(ctx, r, v) })
	s.unseen.note(a, func() string { return hostOf(from) })
	if !a.verdict.Allow {
		return s.denied(a), nil
	}
	out = s.allowed(a)
	s.repeats.keep(fingerprint, repeatable && a.verdict.TokenState == gate.TokenConsumed, out)
	return out, nil
}

// read fills a from the question.
func (s *GRPC) read(a *asked, q *question) reason.Reason {
	a.told = q.header
	profile, _ := q.extension(extProfile)
	a.profile = challenge.Profile(profile)
	a.request.Environment, _ = q.extension(extEnvironment)
	if shadow, ok := q.extension(extShadow); ok { // a word that is misspelt must not switch enforcement off
		a.request.Shadow, _ = strconv.ParseBool(shadow)
	}
	// Path has the query and is not decoded; the message's own query is always empty.
	if received := s.receive(a, q.method, q.path, q.host, a.told); received != "" {
		return received
	}
	// What is left of cookies may have to be told to Envoy, which takes no other text.
	if q.ambiguous || slices.ContainsFunc(a.told["Cookie"], func(s string) bool { return !utf8.ValidString(s) }) {
		return reason.AmbiguousRequest
	}
	body, known := bodyOf(q)
	bodiless := a.request.Method == http.MethodGet || a.request.Method == http.MethodHead || a.request.Method == http.MethodOptions
	if bodiless && announcesBody(a.told) {
		return reason.AmbiguousRequest
	}
	switch {
	case known:
		a.request.ReadBody = func(limit int64) ([]byte, error) {
			if int64(len(body)) > limit {
				return nil, gate.ErrBodyTooLarge
			}
			return []byte(body), nil
		}
	case a.told.Get(_partialBody) == "true":
		a.request.ReadBody = func(int64) ([]byte, error) { return nil, gate.ErrBodyTooLarge }
	}
	return ""
}

// _partialBody is Envoy's own word about the body it sends, "true" or "false".
const _partialBody = "X-Envoy-Auth-Partial-Body"

// bodyOf returns the client's whole body, and whether it is known to be that. Envoy sends one only where it is told to buffer
// (with_request_body), and says in a header whether it is whole. An empty one proves nothing but with a length of 0: Envoy takes
// Transfer-Encoding away before it asks, and HTTP/2 announces nothing.
func bodyOf(q *question) (body string, known bool) {
	partial := q.header[_partialBody]
	length := int64(-1)
	if values := q.header["Content-Length"]; len(values) == 1 {
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || n < 0 {
			return "", false
		}
		length = n
	}
	if q.body == "" {
		return "", length == 0 && !announcesBody(q.header)
	}
	whole := len(partial) == 1 && partial[0] == "false"
	return q.body, whole && (length < 0 || length == int64(len(q.body)))
}

// announcesBody reports whether the header says that a body follows.
func announcesBody(h http.Header) bool {
	length := h["Content-Length"]
	return len(h["Transfer-Encoding"]) > 0 || len(length) > 1 || len(length) == 1 && length[0] != "0"
}

func (s *GRPC) allowed(a *asked) message {
	remove, set := s.changes(a, false) // Envoy tells of every field
	m := make(message, 0, 1<<10)
	m.status(int32(codes.OK), "")
	ok := m.begin(_answerOK)
	for _, f := range set {
		m.header(_okHeaders, f.name, f.value)
	}
	for _, name := range remove {
		m.string(_okHeadersToRemove, name)
	}
	told := http.Header{}
	challenge.Inform(told, &a.verdict)
	for _, name := range sortedKeys(told) {
		for _, value := range told[name] {
			m.addition(name, value)
		}
	}
	m.end(ok)
	m.verdict(&a.verdict)
	return m
}

func (s *GRPC) denied(a *asked) message {
	w, profile := s.refuse(a), s.profileOf(a)
	m := make(message, 0, 2<<10)
	m.status(challenge.GRPCStatus(profile, a.verdict.Reason), string(a.verdict.Reason))
	denied := m.begin(_answerDenied)
	// A gRPC caller's answer is HTTP 200, which Envoy makes by itself of any other status.
	status := m.begin(_deniedStatus)
	m.number(_statusCode, int32(challenge.Status(profile, a.verdict.Reason)))
	m.end(status)
	w.header.Del("Content-Length")
	for _, name := range sortedKeys(w.header) {
		m.header(_deniedHeaders, strings.ToLower(name), strings.Join(w.header[name], ", "))
	}
	m.string(_deniedBody, string(w.body))
	m.end(denied)
	m.verdict(&a.verdict)
	return m
}

// header replaces every copy that is there. The name is in lower case.
func (m *message) header(n protowire.Number, name, value string) {
	m.option(n, name, value, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
}

// addition tells the client something in the backend's answer. What the backend says itself stays; links are a list.
func (m *message) addition(name, value string) {
	action := corev3.HeaderValueOption_ADD_IF_ABSENT
	if name == "Link" {
		action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	}
	m.option(_okResponseHeadersToAdd, strings.ToLower(name), value, action)
}

// verdict is for Envoy's later filters and its access log, under envoy.filters.http.ext_authz.
func (m *message) verdict(v *gate.Verdict) {
	m.metadata(field{"decision_id", v.DecisionID}, field{"outcome", v.Outcome()}, field{"reason", string(v.Reason)},
		field{"operation", v.Operation()}, field{"subject", v.Subject})
}
