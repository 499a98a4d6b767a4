package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	return Parse(path, data, opts)
}

// Parse is Load for a file that is already in memory. The name is used in problems, and its directory is where relative
// paths begin. It touches no disk.
func Parse(name string, data []byte, opts LoadOptions) (*Config, error) {
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
		return nil, d.problems.err()
	}
	c := Defaults()
	d.root(root, c)
	c.source = d.source
	v := &checker{Config: c, bad: d.bad, problems: d.problems}
	v.check()
	if err := v.problems.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// readFault says why a file could not be read, without the path, which stands before it.
func readFault(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}
