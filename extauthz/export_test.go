package extauthz

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Check asks in Envoy's own types.
func (s *GRPC) Check(ctx context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	text, err := proto.Marshal(in)
	if err != nil {
		return nil, err
	}
	return s.CheckText(ctx, text)
}

// Written is the length of the last answer.
var Written int

// CheckText asks in bytes, which may be no CheckRequest.
func (s *GRPC) CheckText(ctx context.Context, text []byte) (*authv3.CheckResponse, error) {
	out, err := s.Answer(ctx, text)
	if err != nil {
		return nil, err
	}
	Written = len(out)
	answer := new(authv3.CheckResponse)
	return answer, proto.Unmarshal(out, answer)
}

// Answer asks and is answered in bytes.
func (s *GRPC) Answer(ctx context.Context, text []byte) ([]byte, error) {
	return s.answer(ctx, func(q *question) error {
		q.read(text)
		return nil
	})
}

// Numbers are the field numbers of wire.go by the fields' full names.
var Numbers = map[string]protowire.Number{
	"envoy.service.auth.v3.CheckRequest.attributes":                         _checkRequestAttributes,
	"envoy.service.auth.v3.AttributeContext.request":                        _attributesRequest,
	"envoy.service.auth.v3.AttributeContext.context_extensions":             _attributesExtensions,
	"envoy.service.auth.v3.AttributeContext.ContextExtensionsEntry.key":     _pairKey,
	"envoy.service.auth.v3.AttributeContext.ContextExtensionsEntry.value":   _pairValue,
	"envoy.service.auth.v3.AttributeContext.Request.http":                   _requestHTTP,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.method":             _httpMethod,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.headers":            _httpHeaders,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.HeadersEntry.key":   _pairKey,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.HeadersEntry.value": _pairValue,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.path":               _httpPath,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.host":               _httpHost,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.scheme":             _httpScheme,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.protocol":           _httpProtocol,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.body":               _httpBody,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.raw_body":           _httpRawBody,
	"envoy.service.auth.v3.AttributeContext.HttpRequest.header_map":         _httpHeaderMap,
	"envoy.config.core.v3.HeaderMap.headers":                                _headerMapHeaders,
	"envoy.config.core.v3.HeaderValue.key":                                  _pairKey,
	"envoy.config.core.v3.HeaderValue.value":                                _pairValue,
	"envoy.config.core.v3.HeaderValue.raw_value":                            _pairRawValue,
	"envoy.service.auth.v3.CheckResponse.status":                            _answerStatus,
	"envoy.service.auth.v3.CheckResponse.denied_response":                   _answerDenied,
	"envoy.service.auth.v3.CheckResponse.ok_response":                       _answerOK,
	"envoy.service.auth.v3.CheckResponse.dynamic_metadata":                  _answerMetadata,
	"google.rpc.Status.code":                                                _statusCode,
	"google.rpc.Status.message":                                             _statusMessage,
	"envoy.type.v3.HttpStatus.code":                                         _statusCode,
	"envoy.service.auth.v3.OkHttpResponse.headers":                          _okHeaders,
	"envoy.service.auth.v3.OkHttpResponse.headers_to_remove":                _okHeadersToRemove,
	"envoy.service.auth.v3.OkHttpResponse.response_headers_to_add":          _okResponseHeadersToAdd,
	"envoy.service.auth.v3.DeniedHttpResponse.status":                       _deniedStatus,
	"envoy.service.auth.v3.DeniedHttpResponse.headers":                      _deniedHeaders,
	"envoy.service.auth.v3.DeniedHttpResponse.body":                         _deniedBody,
	"envoy.config.core.v3.HeaderValueOption.header":                         _optionHeader,
	"envoy.config.core.v3.HeaderValueOption.append_action":                  _optionAction,
	"google.protobuf.Struct.fields":                                         _structFields,
	"google.protobuf.Struct.FieldsEntry.key":                                _pairKey,
	"google.protobuf.Struct.FieldsEntry.value":                              _pairValue,
	"google.protobuf.Value.string_value":                                    _valueString,
}

// Read is what the door reads of a message, in one text.
func Read(text []byte) (string, bool) {
	q := new(question)
	q.read(text)
	slices.SortFunc(q.extensions, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return Told(q.method, q.path, q.host, q.scheme, q.protocol, q.body, q.header, fmt.Sprint(q.extensions)), !q.ambiguous
}

// Told writes what a question says.
func Told(method, path, host, scheme, protocol, body string, header http.Header, extensions string) string {
	return fmt.Sprintf("%q %q %q %q %q %q %q %s", method, path, host, scheme, protocol, body, header, extensions)
}
