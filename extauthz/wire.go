package extauthz

import (
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Envoy's question and our answer are read and written as they are on the wire. The generated types would build messages out of
// a hundred objects, most of them for things that nobody here reads; and what they cannot read is a gRPC error, which Envoy
// treats by its failure_mode_allow.

// Numbers of the fields in envoy/service/auth/v3/external_auth.proto and what it imports. TestTheNumbersAreEnvoys compares them
// with the descriptors.
const (
	_checkRequestAttributes protowire.Number = 1
	_attributesRequest      protowire.Number = 4
	_attributesExtensions   protowire.Number = 10
	_requestHTTP            protowire.Number = 2

	_httpMethod    protowire.Number = 2
	_httpHeaders   protowire.Number = 3
	_httpPath      protowire.Number = 4
	_httpHost      protowire.Number = 5
	_httpScheme    protowire.Number = 6
	_httpProtocol  protowire.Number = 10
	_httpBody      protowire.Number = 11
	_httpRawBody   protowire.Number = 12
	_httpHeaderMap protowire.Number = 13

	_headerMapHeaders protowire.Number = 1
	_pairKey          protowire.Number = 1 // of a HeaderValue, and of an entry of a map
	_pairValue        protowire.Number = 2
	_pairRawValue     protowire.Number = 3 // of a HeaderValue only

	_answerStatus   protowire.Number = 1
	_answerDenied   protowire.Number = 2
	_answerOK       protowire.Number = 3
	_answerMetadata protowire.Number = 4

	_statusCode    protowire.Number = 1 // of google.rpc.Status and envoy.type.v3.HttpStatus
	_statusMessage protowire.Number = 2

	_okHeaders              protowire.Number = 2
	_okHeadersToRemove      protowire.Number = 5
	_okResponseHeadersToAdd protowire.Number = 6

	_deniedStatus  protowire.Number = 1
	_deniedHeaders protowire.Number = 2
	_deniedBody    protowire.Number = 3

	_optionHeader protowire.Number = 1
	_optionAction protowire.Number = 3

	_structFields protowire.Number = 1
	_valueString  protowire.Number = 3
)

// question is what is read of a CheckRequest.
type question struct {
	method, path, host, scheme, protocol, body string

	header     http.Header // in net/http's form, without pseudo-header fields
	extensions []field
	// ambiguous: it cannot be read, says something twice, or contradicts itself.
	ambiguous bool

	requests int

	values []string // values of header are parts of it
	pseudo []pseudo
	first  [4]pseudo // of them, without an allocation
}

// No question in good faith has more of them. Envoy lets a client have 100 fields, unless it is told otherwise.
const (
	maxFields     = 1000
	maxExtensions = 64
)

// pseudo is a pseudo-header field's value, and the member that must say the same.
type pseudo struct {
	value  []byte // of the message
	member *string
}

// read fills q from a message.
func (q *question) read(message []byte) {
	q.header, q.pseudo = http.Header{}, q.first[:0]
	attributes := 0
	for m := (members{rest: message}); q.next(&m); {
		if m.number == _checkRequestAttributes {
			attributes++
			q.readAttributes(m.value)
		}
	}
	// A protobuf reader would make one of two: nobody who asks in good faith sends two.
	q.expect(attributes == 1 && q.requests == 1)
	for _, p := range q.pseudo {
		q.expect(string(p.value) == *p.member)
	}
}

func (q *question) expect(ok bool) {
	if !ok {
		q.ambiguous = true
	}
}

// members are the fields of a message that have a length: all that are read have one.
type members struct {
	rest   []byte
	number protowire.Number
	value  []byte
}

func (q *question) next(m *members) bool {
	for len(m.rest) > 0 {
		n, kind, size := protowire.ConsumeTag(m.rest)
		if size < 0 {
			q.ambiguous = true
			return false
		}
		m.rest = m.rest[size:]
		if kind == protowire.BytesType {
			m.value, size = protowire.ConsumeBytes(m.rest)
		} else {
			size = protowire.ConsumeFieldValue(n, kind, m.rest)
		}
		if size < 0 {
			q.ambiguous = true
			return false
		}
		m.rest = m.rest[size:]
		if kind == protowire.BytesType {
			m.number = n
			return true
		}
	}
	return false
}

// string keeps a proto3 string, which must be UTF-8.
func (q *question) string(v []byte) string {
	q.expect(utf8.Valid(v))
	if word, ok := words[string(v)]; ok {
		return word
	}
	return string(v)
}

// words are what the members of nearly all questions say.
var words = map[string]string{
	"GET": "GET", "POST": "POST", "PUT": "PUT", "PATCH": "PATCH", "DELETE": "DELETE", "OPTIONS": "OPTIONS", "HEAD": "HEAD",
	"http": "http", "https": "https", "HTTP/1.1": "HTTP/1.1", "HTTP/2": "HTTP/2", "HTTP/3": "HTTP/3",
}

// once notes a member that may be there once. Of those that are not read nothing is known: Envoy adds members.
func (q *question) once(seen *uint32, n protowire.Number) {
	q.expect(*seen&(1<<n) == 0)
	*seen |= 1 << n
}

func (q *question) readAttributes(message []byte) {
	for m := (members{rest: message}); q.next(&m); {
		switch m.number {
		case _attributesExtensions:
			q.readExtension(m.value)
		case _attributesRequest:
			for m := (members{rest: m.value}); q.next(&m); {
				if m.number != _requestHTTP {
					continue
				}
				if q.requests++; q.requests == 1 {
					q.readHTTP(m.value)
				}
			}
		}
	}
}

func (q *question) readExtension(entry []byte) {
	if len(q.extensions) == maxExtensions {
		q.ambiguous = true
		return
	}
	name, value, _ := q.readPair(entry)
	f := field{q.string(name), q.string(value)}
	_, there := q.extension(f.name)
	q.expect(!there)
	q.extensions = append(q.extensions, f)
}

// extension returns a value of the route's context_extensions.
func (q *question) extension(name string) (value string, ok bool) {
	for _, f := range q.extensions {
		if f.name == name {
			return f.value, true
		}
	}
	return "", false
}

// readPair reads an entry of a map, or a HeaderValue.
func (q *question) readPair(message []byte) (key, value, raw []byte) {
	var seen uint32
	for m := (members{rest: message}); q.next(&m); {
		switch m.number {
		case _pairKey:
			key = m.value
		case _pairValue:
			value = m.value
		case _pairRawValue:
			raw = m.value
		default:
			continue
		}
		q.once(&seen, m.number)
	}
	return key, value, raw
}

// readHTTP reads the client's request. Its header is in headers, where fields of one name are joined by commas, or in header_map,
// which has every field as it came.
func (q *question) readHTTP(message []byte) {
	if fields := q.count(message); fields <= maxFields {
		q.header, q.values = make(http.Header, fields), make([]string, 0, fields)
	} else {
		q.ambiguous = true
		return
	}
	var seen uint32
	var joined bool
	for m := (members{rest: message}); q.next(&m); {
		switch m.number {
		case _httpHeaders: // a map, so that there is one member for each entry
			joined = true
			name, value, _ := q.readPair(m.value)
			q.expect(utf8.Valid(value))
			q.expect(q.add(name, value))
			continue
		case _httpHeaderMap:
			q.readHeaderMap(m.value)
		case _httpMethod:
			q.method = q.string(m.value)
		case _httpPath:
			q.path = q.string(m.value)
		case _httpHost:
			q.host = q.string(m.value)
		case _httpScheme:
			q.scheme = q.string(m.value)
		case _httpProtocol:
			q.protocol = q.string(m.value)
		case _httpBody:
			q.expect(utf8.Valid(m.value))
			if q.body == "" {
				q.body = string(m.value)
			}
		case _httpRawBody:
			if len(m.value) > 0 {
				q.body = string(m.value)
			}
		default:
			continue
		}
		q.once(&seen, m.number)
	}
	q.expect(!joined || seen&(1<<_httpHeaderMap) == 0)
}

// count returns how many header fields there are.
func (q *question) count(message []byte) (fields int) {
	for m := (members{rest: message}); q.next(&m); {
		switch m.number {
		case _httpHeaders:
			fields++
		case _httpHeaderMap:
			for m := (members{rest: m.value}); q.next(&m); {
				fields++
			}
		}
	}
	return fields
}

func (q *question) readHeaderMap(message []byte) {
	for m := (members{rest: message}); q.next(&m); {
		if m.number != _headerMapHeaders {
			continue
		}
		name, value, raw := q.readPair(m.value)
		if len(raw) == 0 {
			q.expect(utf8.Valid(value))
			raw = value
		}
		q.add(name, raw)
	}
}

// add adds one field, and reports whether it is the first of its name.
func (q *question) add(name, value []byte) bool {
	switch string(name) {
	case ":path":
		q.pseudo = append(q.pseudo, pseudo{value, &q.path})
	case ":method":
		q.pseudo = append(q.pseudo, pseudo{value, &q.method})
	case ":authority":
		q.pseudo = append(q.pseudo, pseudo{value, &q.host})
	default:
		if len(name) == 0 || name[0] != ':' {
			return q.addField(name, value)
		}
	}
	return true
}

func (q *question) addField(name, value []byte) bool {
	canonical, ok := wellKnown[string(name)]
	if !ok {
		canonical = http.CanonicalHeaderKey(q.string(name))
	}
	if canonical == "Host" {
		q.pseudo = append(q.pseudo, pseudo{value, &q.host})
		return true
	}
	if others := q.header[canonical]; len(others) > 0 {
		q.header[canonical] = append(others, string(value))
		return false
	}
	q.values = append(q.values, string(value))
	q.header[canonical] = q.values[len(q.values)-1 : len(q.values) : len(q.values)]
	return true
}

// wellKnown are names that most requests have, in net/http's form by the one in lower case.
var wellKnown = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Content-Length", "Content-Type", "Cookie", "Dnt",
		"If-None-Match", "Origin", "Pragma", "Priority", "Referer", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest",
		"Sec-Fetch-Mode", "Sec-Fetch-Site", "Te", "Traceparent", "Tracestate", "Transfer-Encoding", "User-Agent", "X-Envoy-Auth-Partial-Body",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id",
		"X-Dyn-Api-Version", "X-Dyn-Device-Fingerprint", "X-Dyn-Elevated-Access-Token", "X-Dyn-Request-Id", "X-Dyn-Session-Public-Key",
		"X-Dyn-Version", "X-Mfa-Auth-Token",
	} {
		names[strings.ToLower(name)] = name
	}
	return names
}()

// message appends a message, or a part of one, to what is there.
type message []byte

func (m *message) string(n protowire.Number, s string) {
	*m = protowire.AppendString(protowire.AppendTag(*m, n, protowire.BytesType), s)
}

// number leaves out the default, as proto3 has it.
func (m *message) number(n protowire.Number, v int32) {
	if v != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, n, protowire.VarintType), uint64(v))
	}
}

// begin begins a message within this one, which ends at end(begin(n)).
func (m *message) begin(n protowire.Number) (at int) {
	*m = append(protowire.AppendTag(*m, n, protowire.BytesType), 0) // its length, if that is below 128
	return len(*m)
}

func (m *message) end(at int) {
	size := len(*m) - at
	if size < 0x80 {
		(*m)[at-1] = byte(size)
		return
	}
	*m = slices.Insert(*m, at, make([]byte, protowire.SizeVarint(uint64(size))-1)...)
	protowire.AppendVarint((*m)[:at-1], uint64(size))
}

func (m *message) pair(key, value string) {
	m.string(_pairKey, key)
	m.string(_pairValue, value)
}

// option is a HeaderValueOption.
func (m *message) option(n protowire.Number, name, value string, action corev3.HeaderValueOption_HeaderAppendAction) {
	at := m.begin(n)
	header := m.begin(_optionHeader)
	m.pair(name, value)
	m.end(header)
	m.number(_optionAction, int32(action))
	m.end(at)
}

// status is a google.rpc.Status, which is there even when it says OK.
func (m *message) status(code int32, text string) {
	at := m.begin(_answerStatus)
	m.number(_statusCode, code)
	if text != "" {
		m.string(_statusMessage, text)
	}
	m.end(at)
}

// metadata is the answer's google.protobuf.Struct, all of strings.
func (m *message) metadata(fields ...field) {
	at := m.begin(_answerMetadata)
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		entry := m.begin(_structFields)
		m.string(_pairKey, f.name)
		value := m.begin(_pairValue)
		m.string(_valueString, f.value)
		m.end(value)
		m.end(entry)
	}
	m.end(at)
}

// codec reads questions and writes answers; all else is protobuf's.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal is encoding.CodecV2's.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(message); ok {
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal is encoding.CodecV2's.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	q, ok := v.(*question)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	q.read(whole.ReadOnlyData())
	return nil
}
