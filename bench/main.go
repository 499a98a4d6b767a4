// Command bench measures Stepward beside a tuned bare httputil.ReverseProxy, in one run, and prints ratios.
//
// Backend and loader share CPU 1, the proxy under test has CPU 0 to itself (GOMAXPROCS=1). Every row is taken A B A: bare,
// Stepward, bare; a round's ratio is B over the mean of the two A, and the median of the rounds is printed. Absolute
// figures of shared machines move by a third from minute to minute; these ratios hold to a tenth.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	role := flag.String("role", "", "internal: backend, bare or yes")
	listen := flag.String("listen", "", "internal: address of a role")
	upstream := flag.String("upstream", "", "internal: the bare proxy's backend")
	binary := flag.String("stepward", "bin/stepward", "the program to measure")
	leg := flag.Duration("leg", 700*time.Millisecond, "how long one measurement lasts")
	rounds := flag.Int("rounds", 3, "rounds of A B A for each row")
	only := flag.String("only", "", "measure only rows whose name contains this")
	concurrency := flag.Int("concurrency", 0, "measure only at this concurrency")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch *role {
	case "backend":
		err = backend(ctx, *listen)
	case "bare":
		err = bare(ctx, *listen, *upstream)
	case "yes":
		err = alwaysYes(ctx, *listen)
	default:
		err = measure(ctx, os.Stdout, settings{binary: *binary, leg: *leg, rounds: *rounds, only: *only, concurrency: *concurrency})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type settings struct {
	binary      string
	leg         time.Duration
	rounds      int
	only        string
	concurrency int // 0: what the rows say
}

// result is one leg.
type result struct {
	perSecond float64
	cpu       float64 // µs of the proxy's CPU per request
	p50, p99  time.Duration
}

func measure(ctx context.Context, w io.Writer, s settings) error {
	lab, err := newLab(ctx, s)
	if err != nil {
		return err
	}
	defer lab.close()
	fmt.Fprintf(w, "%-34s %5s  %9s %9s  %6s  %8s %8s %7s  %9s %9s\n", "row", "conc", "bare/s", "stepward/s", "ratio", "bare µs", "stepw µs", "added", "p50", "p99")
	for _, row := range lab.rows() {
		if err := lab.row(ctx, w, row); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	if err := lab.extAuthz(ctx, w); err != nil {
		return fmt.Errorf("ext_authz: %w", err)
	}
	if !matches("start", s.only) {
		return nil
	}
	return lab.starts(ctx, w)
}

// starts prints how long it takes from exec to the first request served, with the embedded policy.
func (l *lab) starts(ctx context.Context, w io.Writer) error {
	var took []time.Duration
	for range 5 {
		began := time.Now()
		under, err := l.stepward(ctx, row{ledger: "bolt"})
		if err != nil {
			return err
		}
		_, err = work(ctx, under.address, first(l.plain(0)), 200, time.Now().Add(time.Second))
		took = append(took, time.Since(began))
		under.stop()
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nstart, exec to the first answer: %s (median of %d)\n", median(took).Round(time.Millisecond), len(took))
	return nil
}

// first yields one request.
func first(next source) source {
	done := false
	return func() []byte {
		if done {
			return nil
		}
		done = true
		return next()
	}
}

func (l *lab) row(ctx context.Context, w io.Writer, r row) error {
	if !matches(r.name, l.settings.only) {
		return nil
	}
	under, err := l.stepward(ctx, r)
	if err != nil {
		return err
	}
	defer under.stop()
	for _, concurrency := range r.concurrency {
		if c := l.settings.concurrency; c != 0 && c != concurrency {
			continue
		}
		var legs series
		for range l.settings.rounds {
			a1, err := l.load(ctx, l.bare, l.plain, concurrency, 200)
			if err != nil {
				return err
			}
			b, err := l.load(ctx, under, r.requests, concurrency, r.status)
			if err != nil {
				return err
			}
			a2, err := l.load(ctx, l.bare, l.plain, concurrency, 200)
			if err != nil {
				return err
			}
			legs.add(a1, b, a2)
		}
		legs.print(w, r.name, concurrency)
	}
	return nil
}

// series is what the rounds of a row came to.
type series struct {
	ratios, added, bareRate, rate, bareCPU, cpu []float64
	p50, p99                                    []time.Duration
}

// add takes one round, A B A.
func (s *series) add(a1, b, a2 result) {
	a, aCPU := (a1.perSecond+a2.perSecond)/2, (a1.cpu+a2.cpu)/2
	s.ratios, s.bareRate, s.rate = append(s.ratios, b.perSecond/a), append(s.bareRate, a), append(s.rate, b.perSecond)
	s.bareCPU, s.cpu, s.added = append(s.bareCPU, aCPU), append(s.cpu, b.cpu), append(s.added, b.cpu-aCPU)
	s.p50, s.p99 = append(s.p50, b.p50), append(s.p99, b.p99)
}

// print writes the medians.
func (s *series) print(w io.Writer, name string, concurrency int) {
	fmt.Fprintf(w, "%-34s %5d  %9.0f %9.0f  %6.2f  %8.1f %8.1f %+7.1f  %9s %9s\n", name, concurrency, median(s.bareRate), median(s.rate),
		median(s.ratios), median(s.bareCPU), median(s.cpu), median(s.added), median(s.p50).Round(time.Microsecond), median(s.p99).Round(time.Microsecond))
}

func median[T float64 | time.Duration](list []T) T {
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
