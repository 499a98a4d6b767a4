package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/stepward/stepward/policy"
	"github.com/stepward/stepward/rego"
)

// testVerb runs the Rego tests of a policy folder, or of the embedded policy.
func testVerb(ctx context.Context, c *call) error {
	filter := c.flags.String("run", "", "run only tests whose name matches this regular expression")
	least := c.flags.Float64("coverage", 0, "fail when less than this percentage of any policy file is covered")
	if err := c.parse(1); err != nil {
		return err
	}
	var files fs.FS = rego.FS
	if dir := c.flags.Arg(0); dir != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("test: %s is not a folder with a policy", dir)
		}
		files = os.DirFS(dir)
	}
	report, err := policy.Test(ctx, files, *filter)
	if err != nil {
		return err
	}
	if !printReport(c.stdout, report, *least) {
		return errSaid
	}
	return nil
}

func printReport(w io.Writer, r *policy.TestReport, least float64) bool {
	passed := 0
	for _, t := range r.Results {
		if t.Passed {
			passed++
			continue
		}
		fmt.Fprintf(w, "FAIL  %s:%d  %s: %s\n", t.File, t.Line, t.Name, t.Message)
	}
	ok := r.Passed()
	for _, f := range r.Coverage {
		fmt.Fprintf(w, "%5.1f %%  %s%s\n", f.Percent, f.File, missed(f.Missed))
		if f.Percent < least {
			fmt.Fprintf(w, "FAIL  %s: less than %.0f %% covered\n", f.File, least)
			ok = false
		}
	}
	if len(r.Results) == 0 {
		fmt.Fprintln(w, "FAIL  no tests: write rules named test_… in *_test.rego files beside the policy")
	}
	fmt.Fprintf(w, "%d of %d tests passed\n", passed, len(r.Results))
	return ok
}

func missed(lines []int) string {
	if len(lines) == 0 {
		return ""
	}
	return "  not reached: lines " + strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]")
}
