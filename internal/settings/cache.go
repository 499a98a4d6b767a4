package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stepward/stepward/internal/apiversion"
	"github.com/stepward/stepward/internal/fetch"
)

// cacheVersion tells apart forms of the file. Members may be added within one.
const cacheVersion = 1

// maxCache bounds the file.
const maxCache = 16 << 20

// cache is the file that holds the last good settings over a restart.
type cache struct {
	Version      int                  `json:"version"`
	Environments map[string]*Settings `json:"environments"`
}

// readCache returns what the file holds, and nothing where there is none. A file that cannot be understood is an error: without
// it a minimum could be lowered.
func readCache(path string) (map[string]*Settings, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]*Settings{}, nil
	}
	if err != nil {
		return nil, fetch.WithoutPath(err)
	}
	defer f.Close()
	text, err := fetch.ReadAtMost(f, maxCache)
	if err != nil {
		return nil, err
	}
	var c cache
	if err := json.Unmarshal(text, &c); err != nil || c.Version != cacheVersion || c.Environments == nil {
		return nil, fmt.Errorf("is not a cache of settings of version %d", cacheVersion)
	}
	for id, s := range c.Environments {
		if !s.sound() {
			return nil, fmt.Errorf("holds settings of environment %.40q that no backend can have sent", id)
		}
	}
	return c.Environments, nil
}

// sound reports whether Parse can have made s.
func (s *Settings) sound() bool {
	if s == nil {
		return false
	}
	v, err := apiversion.Parse(string(s.MinimumAPIVersion))
	return err == nil && v == s.MinimumAPIVersion && !slices.ContainsFunc(s.Actions, func(a Action) bool {
		return !isName(a.Name) || a.Token != "" && a.Token != singleUse && a.Token != timeBound || a.MaxAge < 0 || a.MaxAge%time.Second != 0
	})
}

func encodeCache(environments map[string]*Settings) ([]byte, error) {
	text, err := json.MarshalIndent(cache{cacheVersion, environments}, "", "  ")
	return append(text, '\n'), err
}

// writeCache replaces the file as a whole: after a crash there is the old one or the new one. Only its owner may read it.
func writeCache(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return fetch.WithoutPath(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what is left of it is of no use
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
