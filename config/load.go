package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// LoadOptions are what Load and Parse need of the world. The zero value is the real one.
type LoadOptions struct {
	// Env looks up an environment variable; nil is os.LookupEnv.
	Env func(name string) (string, bool)
	// ReadFile reads the configuration file, and nothing else; nil is os.ReadFile.
	ReadFile func(path string) ([]byte, error)
}

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// Load reads and checks one file. Relative paths in it are resolved against the directory in which it stands. The error
// is a Problems that holds everything that is wrong.
func Load(path string, opts LoadOptions) (*Config, error) {
	data, err := readConfig(path, opts)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, opts)
}

// Check is Load and CheckFiles at once, for a report of everything that is wrong. The Config is what could be read of a faulty
// file, for further checks and for nothing else; it is nil where that is nothing.
func Check(path string, opts LoadOptions, disk Disk) (*Config, Problems) {
	data, err := readConfig(path, opts)
	if err != nil {
		return nil, asProblems(err)
	}
	c, problems := parse(path, data, opts)
	if c == nil {
		return nil, problems
	}
	for _, p := range asProblems(CheckFiles(c, disk)) {
		if !slices.ContainsFunc(problems, func(q Problem) bool { return q.Field == p.Field }) {
			problems = append(problems, p)
		}
	}
	return c, asProblems(problems.err())
}

func asProblems(err error) Problems {
	var list Problems
	_ = errors.As(err, &list) // nil has none
	return list
}

func readConfig(path string, opts LoadOptions) ([]byte, error) {
	read := opts.ReadFile
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(path)
	if err != nil {
		return nil, Problems{{
			File:   path,
			Fault:  "cannot be read: " + readFault(err),
			Remedy: "name the configuration file with --config FILE",
		}}
	}
	return data, nil
}

// Parse is Load for a file that is already in memory. The name is used in problems, and its directory is where relative
// paths begin. It touches no disk.
func Parse(name string, data []byte, opts LoadOptions) (*Config, error) {
	c, problems := parse(name, data, opts)
	if err := problems.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func parse(name string, data []byte, opts LoadOptions) (*Config, Problems) {
	env := opts.Env
	if env == nil {
		env = os.LookupEnv
	}
	d := &decoder{
		dir:    filepath.Dir(name),
		env:    env,
		source: source{file: name, at: make(map[string]place)},
		bad:    make(map[string]bool),
	}
	root, ok := d.document(data)
	if !ok {
		return nil, d.problems
	}
	c := Defaults()
	d.root(root, c)
	c.source = d.source
	c.setLedgerDefaults()
	v := &checker{Config: c, bad: d.bad, problems: d.problems}
	v.check()
	return c, v.problems
}

// readFault says why a file could not be read, without the path, which stands before it.
func readFault(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}
