package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"
)

// Options are what a store needs to know besides its place. MemoryConfig and BoltConfig say what each means.
type Options struct {
	Capacity int
	Leeway   time.Duration
	Remember time.Duration
	LockWait time.Duration
	Now      func() time.Time
}

// Open opens the store that rawURL names: memory: or bolt: and a path, which is absolute in bolt:///var/lib/ledger.db and
// relative to the working directory in bolt:ledger.db. It accepts what the configuration file accepts.
func Open(ctx context.Context, rawURL string, o Options) (Store, error) {
	scheme, file, err := parse(rawURL)
	if err != nil {
		// Without the text: an address of another kind of store may hold a password.
		return nil, fmt.Errorf("ledger: the address %w", err)
	}
	if scheme == "memory" {
		m, err := NewMemory(MemoryConfig{Capacity: o.Capacity, Leeway: o.Leeway, Remember: o.Remember, Now: o.Now})
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	b, err := NewBolt(ctx, BoltConfig{
		Path: file, Capacity: o.Capacity, Leeway: o.Leeway, Remember: o.Remember, LockWait: o.LockWait, Now: o.Now,
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// checkCapacity is for both stores: their index numbers its keys with 32 bits.
func checkCapacity(keys int) error {
	if keys <= 0 || keys > math.MaxInt32 {
		return fmt.Errorf("ledger: capacity %d: write a number of keys from 1 to %d", keys, math.MaxInt32)
	}
	return nil
}

func parse(rawURL string) (scheme, file string, err error) {
	scheme, rest, found := strings.Cut(rawURL, ":")
	switch {
	case scheme == "memory" && found:
		if strings.Trim(rest, "/") != "" {
			return "", "", errors.New("names a place or has options, and a ledger in memory has neither: write memory: alone")
		}
		return scheme, "", nil
	case scheme == "bolt" && found:
		file, err = parseFile(rest)
		return scheme, file, err
	}
	return "", "", errors.New("is not a ledger's: write memory: or, with a path, bolt:///var/lib/stepward/ledger.db")
}

func parseFile(rest string) (string, error) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return "", errors.New("names a host, but a bolt: ledger is a file: write three slashes for an absolute path, " +
				"or bolt:ledger.db")
		}
		rest = after
	}
	switch {
	case strings.ContainsAny(rest, "?#%"):
		return "", errors.New("has options or escapes, and there are none: write a plain path")
	case rest == "" || strings.HasSuffix(rest, "/") || path.Base(rest) == "." || path.Base(rest) == "..":
		return "", errors.New("names no file: write bolt:///var/lib/stepward/ledger.db or bolt:ledger.db")
	case strings.ContainsRune(rest, 0):
		return "", errors.New("has a NUL byte: write a plain path")
	}
	return rest, nil
}
