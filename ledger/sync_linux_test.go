package ledger_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stepward/stepward/internal/testkit"
)

// TestEveryGrantIsSynced looks at the system calls of another process: before it may say that a key was granted, the pages
// were written and synced, and then the meta page was written and synced.
func TestEveryGrantIsSynced(t *testing.T) {
	strace := testkit.Part(t, "strace")
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(strace, "-f", "-e", "trace=write,pwrite64,fdatasync", "-e", "signal=none", "-o", trace, self)
	child.Env = append(os.Environ(), childPath+"="+filepath.Join(dir, "ledger.db"), childFrom+"=0", childClients+"=1", childKeys+"=30")
	if out, err := child.CombinedOutput(); err != nil {
		testkit.Missing(t, fmt.Errorf("strace does not work here: %w: %s", err, out))
	}
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// A write that another thread's call interrupts in the trace is told by its beginning, a sync by its end.
	granted, synced := regexp.MustCompile(`write\(1, "(\d+)\\n"`), regexp.MustCompile(`w+sws`)
	steps, grants := "", 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.Contains(line, "pwrite64("):
			steps += "w"
		case strings.Contains(line, "fdatasync") && strings.HasSuffix(line, "= 0"):
			steps += "s"
		case strings.Contains(line, `write(1, "open`):
			steps = ""
		case granted.MatchString(line):
			if !synced.MatchString(steps) {
				t.Errorf("key %s: got the steps %q since the key before, want wsws", granted.FindStringSubmatch(line)[1], steps)
			}
			grants++
			steps = ""
		}
	}
	if grants != 30 {
		t.Errorf("got %d grants in the trace, want 30", grants)
	}
}
