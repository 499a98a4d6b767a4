package extauthz_test

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// BenchmarkCheck is the door without gRPC: session known, requirement cached. Beside it stands what protobuf's generated types take
// to read the same question and to write the same answer, with nothing decided.
func BenchmarkCheck(b *testing.B) {
	g := newGRPC(b, 0)
	question := encode(b, question{method: "GET", path: "/read", header: with("accept", "application/json",
		"x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e", "x-forwarded-for", "10.0.0.1", "x-forwarded-proto", "https",
		"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "origin", "https://wallet.example", "accept-language", "en",
		"sec-fetch-mode", "cors", "x-dyn-version", "WalletKit/4.76.0", "x-dyn-api-version", "API/0.0.1125")}.message())
	answer, err := g.door.CheckText(b.Context(), question)
	if err != nil || read(b, answer).status != 200 {
		b.Fatal(answer, err)
	}
	b.Run("door", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.door.Answer(b.Context(), question); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(question, new(authv3.CheckRequest)); err != nil {
				b.Fatal(err)
			}
			if _, err := proto.Marshal(answer); err != nil {
				b.Fatal(err)
			}
		}
	})
}
