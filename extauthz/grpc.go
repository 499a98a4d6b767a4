package extauthz

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/stepward/stepward/challenge"
	"github.com/stepward/stepward/gate"
	"github.com/stepward/stepward/internal/reason"
)

// GRPC answers Envoy's ext_authz v3 (envoy.service.auth.v3.Authorization). It never returns a gRPC error, which Envoy would
// treat by its failure_mode_allow: every refusal is a denied_response with a status that is not OK.
type GRPC struct {
	authv3.UnimplementedAuthorizationServer
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

// Check is Envoy's question about one request.
func (s *GRPC) Check(ctx context.Context, in *authv3.CheckRequest) (out *authv3.CheckResponse, _ error) {
	a := new(asked)
	defer func() {
		if p := recover(); p != nil {
			s.Log.ErrorContext(ctx, "a check ended in a panic; it is refused", "panic", p, "decision_id", a.verdict.DecisionID)
			a.verdict = gate.Verdict{Reason: reason.PolicyError, DecisionID: a.verdict.DecisionID}
			out = s.denied(a)
		}
	}()
	from, _ := peer.FromContext(ctx)
	question := in.GetAttributes().GetRequest().GetHttp()
	why := s.read(a, in.GetAttributes())
	fingerprint, repeatable := s.repeats.fingerprint(from, question, a)
	if answer := s.repeats.find(fingerprint, repeatable && why == ""); answer != nil {
		return answer, nil
	}
	if at, ok := ctx.Deadline(); ok {
		a.request.Deadline = at
	}
	s.decide(a, why, func(q *gate.Request, v *gate.Verdict) { s.Gate.Decide(ctx, q, v) })
	s.unseen.note(hostOf(from), a)
	if !a.verdict.Allow {
		return s.denied(a), nil
	}
	out = s.allowed(a)
	s.repeats.keep(fingerprint, repeatable && a.verdict.TokenState == gate.TokenConsumed, out)
	return out, nil
}

// read fills a from Envoy's attributes.
func (s *GRPC) read(a *asked, attributes *authv3.AttributeContext) reason.Reason {
	question := attributes.GetRequest().GetHttp()
	a.told = http.Header{}
	if question == nil {
		return reason.AmbiguousRequest
	}
	why := headersOf(a.told, question)
	extensions := attributes.GetContextExtensions()
	a.profile = challenge.Profile(extensions[extProfile])
	a.request.Environment = extensions[extEnvironment]
	if shadow, ok := extensions[extShadow]; ok { // a word that is misspelt must not switch enforcement off
		a.request.Shadow, _ = strconv.ParseBool(shadow)
	}
	// Path has the query and is not decoded; the message's own query is always empty.
	if received := s.receive(a, question.GetMethod(), question.GetPath(), question.GetHost(), a.told); received != "" {
		return received
	}
	if why != "" {
		return why
	}
	body, known := bodyOf(question, a.told)
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
			return body, nil
		}
	case a.told.Get(_partialBody) == "true":
		a.request.ReadBody = func(int64) ([]byte, error) { return nil, gate.ErrBodyTooLarge }
	}
	return ""
}

// headersOf fills h from header_map, which has every field as it came, or from headers, where fields of one name are joined by
// commas. Pseudo-headers are told apart in other members and must not contradict them.
func headersOf(h http.Header, q *authv3.AttributeContext_HttpRequest) reason.Reason {
	add := func(name, value string) bool {
		switch name {
		case ":path":
			return value == q.GetPath()
		case ":method":
			return value == q.GetMethod()
		case ":authority", "host":
			return value == q.GetHost()
		}
		if !strings.HasPrefix(name, ":") {
			h.Add(name, value)
		}
		return true
	}
	agree := true
	for _, field := range q.GetHeaderMap().GetHeaders() {
		value := field.GetValue()
		if raw := field.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		agree = add(field.GetKey(), value) && agree
	}
	for name, value := range q.GetHeaders() {
		agree = add(name, value) && agree
	}
	if !agree {
		return reason.AmbiguousRequest
	}
	return ""
}

// _partialBody is Envoy's own word about the body it sends, "true" or "false".
const _partialBody = "X-Envoy-Auth-Partial-Body"

// bodyOf returns the client's whole body, and whether it is known to be that. Envoy sends one only where it is told to buffer
// (with_request_body), and says in a header whether it is whole; a client may have sent that header too, so that an empty body
// is believed only where nothing announces one.
func bodyOf(q *authv3.AttributeContext_HttpRequest, h http.Header) (body []byte, known bool) {
	body = q.GetRawBody()
	if len(body) == 0 {
		body = []byte(q.GetBody())
	}
	partial := h[_partialBody]
	length, announced := int64(-1), announcesBody(h)
	if values := h["Content-Length"]; len(values) == 1 {
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || n < 0 {
			return nil, false
		}
		length = n
	}
	switch {
	case len(body) > 0:
		whole := len(partial) == 1 && partial[0] == "false"
		return body, whole && (length < 0 || length == int64(len(body)))
	case announced:
		return nil, false
	case length == 0:
		return nil, true
	}
	// Without a length HTTP/1 has no body. In HTTP/2 and 3 one may follow unannounced.
	return nil, strings.HasPrefix(q.GetProtocol(), "HTTP/1")
}

// announcesBody reports whether the header says that a body follows.
func announcesBody(h http.Header) bool {
	length := h["Content-Length"]
	return len(h["Transfer-Encoding"]) > 0 || len(length) > 1 || len(length) == 1 && length[0] != "0"
}

func (s *GRPC) allowed(a *asked) *authv3.CheckResponse {
	remove, set := s.changes(a, false) // Envoy tells of every field
	ok := &authv3.OkHttpResponse{HeadersToRemove: remove, Headers: make([]*corev3.HeaderValueOption, len(set))}
	for i, f := range set {
		ok.Headers[i] = header(f.name, f.value)
	}
	told := http.Header{}
	challenge.Inform(told, &a.verdict)
	for _, name := range sortedKeys(told) {
		for _, value := range told[name] {
			ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, addition(name, value))
		}
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}, DynamicMetadata: metadata(&a.verdict),
	}
}

func (s *GRPC) denied(a *asked) *authv3.CheckResponse {
	w, profile := s.refuse(a), s.profileOf(a)
	// A gRPC caller's answer is HTTP 200, which Envoy makes by itself of any other status.
	denied := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(challenge.Status(profile, a.verdict.Reason))},
		Body:   string(w.body),
	}
	w.header.Del("Content-Length")
	for _, name := range sortedKeys(w.header) {
		denied.Headers = append(denied.Headers, header(name, strings.Join(w.header[name], ", ")))
	}
	return &authv3.CheckResponse{
		Status:          &rpcstatus.Status{Code: challenge.GRPCStatus(profile, a.verdict.Reason), Message: string(a.verdict.Reason)},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: denied},
		DynamicMetadata: metadata(&a.verdict),
	}
}

// header replaces every copy that is there.
func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: strings.ToLower(name), Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// addition tells the client something in the backend's answer. What the backend says itself stays; links are a list.
func addition(name, value string) *corev3.HeaderValueOption {
	o := header(name, value)
	o.AppendAction = corev3.HeaderValueOption_ADD_IF_ABSENT
	if name == "Link" {
		o.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	}
	return o
}

// metadata is for Envoy's later filters and its access log, under envoy.filters.http.ext_authz.
func metadata(v *gate.Verdict) *structpb.Struct {
	fields := make(map[string]*structpb.Value, 5)
	for _, f := range [...]field{
		{"decision_id", v.DecisionID}, {"outcome", v.Outcome()}, {"reason", string(v.Reason)}, {"operation", v.Operation()}, {"subject", v.Subject},
	} {
		if f.value != "" {
			fields[f.name] = structpb.NewStringValue(f.value)
		}
	}
	return &structpb.Struct{Fields: fields}
}
