package challenge

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// grpcKind returns the media type with which a gRPC or gRPC-Web caller is answered, "" for everybody else. Nothing of the
// caller's own spelling is repeated.
func grpcKind(contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	for _, base := range []string{"application/grpc-web-text", "application/grpc-web", "application/grpc"} {
		if rest, ok := strings.CutPrefix(mediaType, base); ok && (rest == "" || rest[0] == '+') {
			return base
		}
	}
	return ""
}

// writeGRPC answers with a status alone ("Trailers-Only" of the gRPC over HTTP/2 protocol): HTTP 200, the status in header
// fields, no body. google.rpc.ErrorInfo carries the code and what the client needs to act.
func (w *Writer) writeGRPC(rw http.ResponseWriter, mediaType string, r *row, p *problem) {
	code := r.grpcStatus(w.config.Profile)
	h := rw.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", "0")
	h.Set("Grpc-Status", strconv.Itoa(int(code)))
	h.Set("Grpc-Message", percentEncode(p.Title))
	if details := w.details(code, p); details != "" {
		h.Set("Grpc-Status-Details-Bin", details)
	}
	rw.WriteHeader(http.StatusOK)
}

func (w *Writer) details(code int32, p *problem) string {
	var info anypb.Any
	options := proto.MarshalOptions{Deterministic: true}
	err := anypb.MarshalFrom(&info, &errdetails.ErrorInfo{Reason: p.Code, Domain: w.config.Domain, Metadata: metadata(p)}, options)
	if err != nil {
		return "" // text that is not UTF-8; the status itself is enough
	}
	raw, err := options.Marshal(&status.Status{Code: code, Message: p.Title, Details: []*anypb.Any{&info}})
	if err != nil {
		return ""
	}
	return base64.RawStdEncoding.EncodeToString(raw)
}

// metadata is the challenge in texts, the only values that ErrorInfo has.
func metadata(p *problem) map[string]string {
	m := map[string]string{"kind": string(p.Challenge.Kind), "decision_id": p.DecisionID}
	add := func(name, value string) {
		if value != "" {
			m[name] = value
		}
	}
	c := &p.Challenge
	add("required_scopes", joined(c.RequiredScopes))
	if a := c.Alternative; a != nil {
		add("alternative", string(a.Kind))
		add("alternative_required_scopes", joined(a.RequiredScopes))
		add("alternative_token_header", strings.ToLower(a.TokenHeader))
	}
	if c.SingleUse != nil {
		add("single_use", strconv.FormatBool(*c.SingleUse))
	}
	if c.MaxAge > 0 {
		add("max_age", strconv.Itoa(c.MaxAge))
	}
	add("token_header", strings.ToLower(c.TokenHeader))
	add("action", c.Action)
	add("state", c.State)
	add("verify_url", c.VerifyURL)
	add("minimum_version", c.MinimumVersion)
	add("received_version", c.ReceivedVersion)
	add("sdk", c.SDK)
	add("minimum_sdk_version", c.MinimumSDKVersion)
	add("token_state", p.TokenState)
	add("policy_code", p.PolicyCode)
	if c.Advice != nil {
		add("advised_sdk_version", c.Advice.MinimumSDKVersion)
	}
	add("client_gap", c.ClientGap)
	add("announced_version", c.AnnouncedVersion)
	add("sunset", c.Sunset)
	return m
}

func joined(choices []scopes) string {
	required := make([]string, 0, len(choices))
	for _, choice := range choices {
		required = append(required, strings.Join(choice, "|"))
	}
	return strings.Join(required, " ")
}

// percentEncode is the gRPC protocol's: printable ASCII but "%" stands for itself.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
