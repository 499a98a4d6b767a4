package decisionlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gatedWriter blocks until it is opened.
type gatedWriter struct {
	mu   sync.Mutex
	gate chan struct{}
	buf  bytes.Buffer
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	<-w.gate
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

// failingWriter fails while told to.
type failingWriter struct {
	fail atomic.Bool
	bytes.Buffer
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.fail.Load() {
		return 0, errors.New("disk full")
	}
	return w.Buffer.Write(p)
}

func open(t *testing.T, c Config) *Log {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(time.Second) })
	return l
}

func TestRecordsAreJSONLinesInOrder(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		var out bytes.Buffer
		l := open(t, Config{To: "stdout", Stdout: &out, Blocking: blocking})
		for i := range 100 {
			if err := l.Record(&Record{Phase: "decision", Outcome: "allow", Reason: "none", Status: i, Scopes: []string{"a"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(time.Second); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 100 {
			t.Fatalf("blocking %v: %d lines, want 100", blocking, len(lines))
		}
		for i, line := range lines {
			var r Record
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Status != i {
				t.Fatalf("blocking %v: line %d: %v %s", blocking, i, err, line)
			}
		}
	}
}

func TestFullBufferDropsAndCounts(t *testing.T) {
	var dropped atomic.Int64
	w := &gatedWriter{gate: make(chan struct{})}
	l := open(t, Config{To: "stdout", Stdout: w, Buffer: 4, Dropped: func() { dropped.Add(1) }})
	began := time.Now()
	const sent = 1000
	for range sent {
		if err := l.Record(&Record{}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("records waited for the writer: %s", took)
	}
	close(w.gate)
	if err := l.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	written := int64(strings.Count(w.buf.String(), "\n"))
	if written == 0 || written+dropped.Load() != sent {
		t.Errorf("%d written and %d dropped of %d", written, dropped.Load(), sent)
	}
}

func TestBlockingFailureIsTheCallersAndPasses(t *testing.T) {
	w := new(failingWriter)
	l := open(t, Config{To: "stderr", Stderr: w, Blocking: true})
	w.fail.Store(true)
	if err := l.Record(&Record{DecisionID: "lost"}); err == nil {
		t.Fatal("a record that was not written must be an error")
	}
	w.fail.Store(false)
	if err := l.Record(&Record{DecisionID: "kept"}); err != nil {
		t.Fatalf("the log must recover: %v", err)
	}
	if got := w.String(); strings.Contains(got, "lost") || !strings.Contains(got, "kept") {
		t.Errorf("wrote %q", got)
	}
}

func TestAsynchronousFailureIsCounted(t *testing.T) {
	var dropped atomic.Int64
	w := new(failingWriter)
	w.fail.Store(true)
	l := open(t, Config{To: "stdout", Stdout: w, Dropped: func() { dropped.Add(1) }})
	_ = l.Record(&Record{})
	for deadline := time.Now().Add(10 * time.Second); dropped.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a lost record was not counted")
		}
	}
}

func TestFileIsAppendedPrivateAndReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{To: path, Blocking: true})
	record := func(id string) {
		t.Helper()
		if err := l.Record(&Record{DecisionID: id}); err != nil {
			t.Fatal(err)
		}
	}
	record("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record("two")
	old, _ := os.ReadFile(path + ".1")
	fresh, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(old), "before\n") || !strings.Contains(string(old), "one") || strings.Contains(string(old), "two") ||
		!strings.Contains(string(fresh), "two") {
		t.Errorf("old %q, fresh %q", old, fresh)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	if _, err := Open(Config{To: filepath.Join(t.TempDir(), "no", "such", "folder", "x")}); err == nil || !strings.Contains(err.Error(), "decision_log.to") {
		t.Errorf("missing folder: %v", err)
	}
	if _, err := Open(Config{To: "off", Key: []byte("short")}); err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("short key: %v", err)
	}
}

func TestHash(t *testing.T) {
	key := bytes.Repeat([]byte("k"), MinKey)
	a, b := open(t, Config{To: "stdout", Key: key}), open(t, Config{To: "stdout", Key: key})
	other := open(t, Config{To: "stdout"})
	if a.Hash("sub", "u") != b.Hash("sub", "u") {
		t.Error("one key, one value: the hashes must be comparable across replicas")
	}
	if a.Hash("sub", "u") == other.Hash("sub", "u") || a.Hash("sub", "u") == a.Hash("token", "u") || a.Hash("a", "bc") == a.Hash("ab", "c") {
		t.Error("other key, kind or split: the hashes must differ")
	}
	if len(a.Hash("sub", "u")) != 32 || strings.Contains(a.Hash("sub", "u"), "u") {
		t.Errorf("hash %q", a.Hash("sub", "u"))
	}
	if got := open(t, Config{To: "off", Key: key}).Hash("sub", "u"); got != "" {
		t.Errorf("a log that is off hashes: %q", got)
	}
}

func TestRecordAfterCloseIsCounted(t *testing.T) {
	var dropped atomic.Int64
	l := open(t, Config{To: "stdout", Stdout: new(bytes.Buffer), Dropped: func() { dropped.Add(1) }})
	if err := l.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(&Record{}); err != nil || dropped.Load() != 1 {
		t.Errorf("error %v, %d dropped", err, dropped.Load())
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(Config{To: filepath.Join(b.TempDir(), "log"), Buffer: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	r := &Record{Phase: "decision", DecisionID: strings.Repeat("0", 32), Route: "GET /x", Outcome: "allow", Reason: "none"}
	b.ReportAllocs()
	for b.Loop() {
		_ = l.Record(r)
	}
	_ = l.Close(time.Minute)
}
