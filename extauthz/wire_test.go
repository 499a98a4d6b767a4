package extauthz_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/stepward/stepward/extauthz"
)

func TestTheNumbersAreEnvoys(t *testing.T) {
	for name, number := range extauthz.Numbers {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f, ok := d.(protoreflect.FieldDescriptor); !ok || f.Number() != number {
			t.Errorf("%s: got number %d, want %v", name, number, d)
		}
	}
}

// told is what protobuf's own reader makes of a message, and whether the message contradicts itself.
func told(in *authv3.CheckRequest) (string, bool) {
	q := in.GetAttributes().GetRequest().GetHttp()
	header, good := http.Header{}, q != nil && (len(q.GetHeaders()) == 0 || q.GetHeaderMap() == nil)
	add := func(name, value string, joined bool) {
		if http.CanonicalHeaderKey(name) == "Host" {
			name = "host"
		}
		switch name {
		case ":path":
			good = good && value == q.GetPath()
		case ":method":
			good = good && value == q.GetMethod()
		case ":authority", "host":
			good = good && value == q.GetHost()
		}
		if strings.HasPrefix(name, ":") || name == "host" {
			return
		}
		if good = good && (!joined || header.Values(name) == nil); good {
			header.Add(name, value)
		}
	}
	for _, f := range q.GetHeaderMap().GetHeaders() {
		value := f.GetValue()
		if len(f.GetRawValue()) > 0 {
			value = string(f.GetRawValue())
		}
		add(f.GetKey(), value, false)
	}
	for name, value := range q.GetHeaders() {
		add(name, value, true)
	}
	body := string(q.GetRawBody())
	if body == "" {
		body = q.GetBody()
	}
	extensions := in.GetAttributes().GetContextExtensions()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(extensions)) {
		list = append(list, "{"+name+" "+extensions[name]+"}")
	}
	return extauthz.Told(q.GetMethod(), q.GetPath(), q.GetHost(), q.GetScheme(), q.GetProtocol(), body, header,
		"["+strings.Join(list, " ")+"]"), good
}

// whole is a question with everything that Envoy may send.
func whole() *authv3.CheckRequest {
	in := question{
		method: "POST", path: "/spend?a=b", header: with("x-elevated", "elevated-1", "content-length", "7", "x-ä", "ü", "x-odd.name", ""),
		body: `{"a":1}`, protocol: "HTTP/2", extensions: map[string]string{"environment": "env", "shadow": "", "": "x"},
	}.message()
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
	}}}
	in.Attributes.Source = &authv3.AttributeContext_Peer{Address: address, Principal: "spiffe://a", Labels: map[string]string{"a": "b"}}
	in.Attributes.Destination = in.GetAttributes().GetSource()
	in.Attributes.MetadataContext = &corev3.Metadata{}
	http := in.GetAttributes().GetRequest().GetHttp()
	http.Id, http.Query, http.Fragment = "42", "", ""
	return in
}

func encode(t testing.TB, in *authv3.CheckRequest) []byte {
	t.Helper()
	text, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// rawQuestion has its header as it came, with a field twice.
func rawQuestion() *authv3.CheckRequest {
	return question{method: "GET", path: "/read", raw: []string{
		":path", "/read", ":authority", "wallet.example", "authorization", "Bearer session-1", "accept", "a", "accept", "\xff", "x-new", "1", "x-new", "2", "x-new", "3",
	}}.message()
}

func TestQuestionsAreReadAsProtobufReadsThem(t *testing.T) {
	raw := rawQuestion()
	raw.Attributes.Request.Http.RawBody = []byte("\x00\xff")
	for i, in := range []*authv3.CheckRequest{whole(), raw, {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}}}}} {
		want, good := told(in)
		if !good {
			t.Fatalf("question %d is not good", i)
		}
		if got, ok := extauthz.Read(encode(t, in)); got != want || !ok {
			t.Errorf("question %d: got %v\n%s, want\n%s", i, ok, got, want)
		}
	}
}

// nested is a message within messages; a CheckRequest about an HTTP request has that under 2, 4 and 1.
func nested(message []byte, numbers ...protowire.Number) []byte {
	for _, n := range numbers {
		message = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), message)
	}
	return message
}

// What could be read in two ways is refused, by an answer.
func TestQuestionsThatSayAThingTwice(t *testing.T) {
	text := encode(t, whole())
	inside := func(extra func(http []byte) []byte) []byte {
		q := whole().GetAttributes().GetRequest().GetHttp()
		http, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		return nested(extra(http), 2, 4, 1)
	}
	member := func(http []byte, n protowire.Number, v string) []byte {
		return protowire.AppendString(protowire.AppendTag(http, n, protowire.BytesType), v)
	}
	if got, ok := extauthz.Read(inside(func(b []byte) []byte { return b })); !ok {
		t.Fatalf("the question itself is refused: %s", got)
	}
	both := whole()
	both.Attributes.Request.Http.HeaderMap = rawQuestion().GetAttributes().GetRequest().GetHttp().GetHeaderMap()
	for name, text := range map[string][]byte{
		"nothing":                      nil,
		"no bytes of a message":        []byte("\xff\xff\xff"),
		"no attributes":                encode(t, &authv3.CheckRequest{}),
		"no request":                   encode(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}}),
		"two questions":                slices.Concat(text, text),
		"a cut one":                    text[:len(text)-3],
		"a second path":                inside(func(b []byte) []byte { return member(b, 4, "/read") }),
		"a second method":              inside(func(b []byte) []byte { return member(b, 2, "GET") }),
		"a second body":                inside(func(b []byte) []byte { return member(b, 11, "{}") }),
		"a second session":             inside(func(b []byte) []byte { return member(b, 3, "\x0a\x0dauthorization\x12\x10Bearer session-2") }),
		"another spelling of one":      inside(func(b []byte) []byte { return member(b, 3, "\x0a\x0dAuthorization\x12\x10Bearer session-2") }),
		"a key twice":                  inside(func(b []byte) []byte { return member(b, 3, "\x0a\x01a\x0a\x01b\x12\x01c") }),
		"another path beside":          inside(func(b []byte) []byte { return member(b, 3, "\x0a\x05:path\x12\x05/read") }),
		"another host beside":          inside(func(b []byte) []byte { return member(b, 3, "\x0a\x04host\x12\x01h") }),
		"another Host beside":          inside(func(b []byte) []byte { return member(b, 3, "\x0a\x04Host\x12\x01h") }),
		"many questions":               nested(bytes.Repeat([]byte("\x12\x00"), 1000), 4, 1),
		"a header that is cut":         inside(func(b []byte) []byte { return member(b, 3, "\x0a\x05x") }),
		"no UTF-8":                     inside(func(b []byte) []byte { return member(b, 3, "\x0a\x01x\x12\x01\xff") }),
		"both kinds of header":         encode(t, both),
		"a tag and nothing more":       append(slices.Clone(text), 0x0a),
		"more fields than anybody":     inside(func(b []byte) []byte { return append(b, bytes.Repeat([]byte("\x1a\x00"), 1<<20)...) }),
		"more extensions than anybody": manyExtensions(t),
	} {
		g := newGRPC(t, 0)
		out, err := g.door.CheckText(t.Context(), text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// Of a token that is there twice, its own rule speaks first.
		if v := read(t, out); v.status != 400 || v.reason != "ambiguous_request" && v.reason != "invalid_request" || g.book.tried() != 0 {
			t.Errorf("%s: %+v, %d reservations", name, v, g.book.tried())
		}
	}
}

// manyExtensions would take an hour to compare with each other.
func manyExtensions(t *testing.T) []byte {
	t.Helper()
	in := whole()
	for i := range 200_000 {
		in.Attributes.ContextExtensions[strconv.Itoa(i)] = ""
	}
	return encode(t, in)
}

// What a question costs is bounded before it is read.
func TestQuestionsThatWouldCostMemory(t *testing.T) {
	text := nested(bytes.Repeat([]byte("\x1a\x00"), 1<<20), 2, 4, 1)
	if got := testing.AllocsPerRun(3, func() { extauthz.Read(text) }); got > 50 {
		t.Errorf("%v allocations for a million fields", got)
	}
}

// Lengths of messages within answers take one byte, two and three.
func TestAnswersAreWrittenAsProtobufWritesThem(t *testing.T) {
	g := newGRPC(t, 0)
	for _, size := range []int{1, 90, 100, 110, 120, 130, 8 << 10, 17 << 10} {
		long := "x_" + strings.Repeat("x", size) // a name with an underscore, which is removed
		q := question{method: "POST", path: "/spend", header: with("x-elevated", fmt.Sprintf("elevated-%d", size), long, "1")}
		for i, status := range []int{200, 403} {
			out, err := g.door.CheckText(t.Context(), encode(t, q.message()))
			if err != nil {
				t.Fatal(err)
			}
			if v := read(t, out); v.status != status || status == 200 && !slices.Contains(v.removed, long) {
				t.Fatalf("size %d, question %d: %+v", size, i, v)
			}
			if len(out.ProtoReflect().GetUnknown()) > 0 || extauthz.Written != proto.Size(out) {
				t.Errorf("size %d, question %d: written in %d bytes, protobuf takes %d", size, i, extauthz.Written, proto.Size(out))
			}
		}
	}
}

// Whatever protobuf can read and says nothing twice, the door reads alike; and what the door reads, protobuf reads no other way.
func FuzzQuestion(f *testing.F) {
	f.Add(encode(f, whole()))
	f.Add(encode(f, rawQuestion()))
	f.Add([]byte("\x0a\x02\x22\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := extauthz.Read(text)
		in := new(authv3.CheckRequest)
		if proto.Unmarshal(text, in) != nil {
			return
		}
		want, good := told(in)
		if ok && (got != want || !good) {
			t.Errorf("got\n%s, want %v\n%s", got, good, want)
		}
		again, err := proto.Marshal(in) // says nothing twice
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := extauthz.Read(again); good && (!ok || got != want) {
			t.Errorf("written anew: got %v\n%s, want\n%s", ok, got, want)
		}
	})
}
