package challenge

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/reason"
)

// TestDocumentIsFresh holds the table in docs/challenges.md to the one in the code.
func TestDocumentIsFresh(t *testing.T) {
	const file, begin, end = "../docs/challenges.md", "<!-- table: made by go test ./challenge -args -update -->\n", "<!-- end of table -->\n"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks of its table", file)
	}
	want := before + begin + documentTable() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(raw) != want {
		t.Errorf("%s is stale: go test ./challenge -args -update", file)
	}
}

func documentTable() string {
	var b strings.Builder
	b.WriteString("| code | status (`sdk` / `rfc9470`) | gRPC | `WWW-Authenticate` error | kind | what it means |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, why := range reason.All() {
		r := rowOf(why)
		status := fmt.Sprint(r.sdk)
		if r.rfc9470 != 0 {
			status += fmt.Sprintf(" / %d", r.rfc9470)
		}
		bearer := r.bearer
		switch bearer {
		case bearerNone:
			bearer = "none"
		case bearerBare:
			bearer = "Bearer without error"
		}
		meaning := r.title + "."
		if r.detail != "" {
			meaning += " " + r.detail
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d | %s | `%s` | %s |\n", why, status, r.grpc, bearer, r.kind, meaning)
	}
	return b.String()
}
