package testkit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Part returns the path of a real part that a test needs: a program found in PATH, or a file when the name has a slash. A
// developer's machine may lack one, and the test is skipped there. test/run installs them all and sets STEPWARD_REAL_PARTS,
// with which a missing part fails the test.
func Part(t testing.TB, names ...string) string {
	t.Helper()
	var errs []error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if filepath.Base(name) != name {
			path = name
			_, err = os.Stat(name)
		}
		if err == nil {
			return path
		}
		errs = append(errs, err)
	}
	Missing(t, errors.Join(errs...))
	return ""
}

// Missing skips the test, or fails it where all real parts must be there.
func Missing(t testing.TB, why error) {
	t.Helper()
	if os.Getenv("STEPWARD_REAL_PARTS") != "" {
		t.Fatalf("a real part is missing: %v", why)
	}
	t.Skipf("a real part is missing (make test installs it): %v", why)
}
