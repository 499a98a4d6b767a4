package redis

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// mode is how a server is found.
type mode int

const (
	single mode = iota
	sentinel
	cluster
)

// address is what an address names.
type address struct {
	mode           mode
	tls            bool
	user, password string
	hosts          []string // host:port
	master         string   // of sentinel: the name that the Sentinels know
	db             int
}

const examples = "redis://user@host:6379/0, redis+sentinel://user@host:26379,host:26379/master or redis+cluster://user@host:6379,host:6379; " +
	"rediss for TLS"

var schemes = map[string]address{
	"redis":           {mode: single},
	"rediss":          {mode: single, tls: true},
	"redis+sentinel":  {mode: sentinel},
	"rediss+sentinel": {mode: sentinel, tls: true},
	"redis+cluster":   {mode: cluster},
	"rediss+cluster":  {mode: cluster, tls: true},
}

// ParseURL reports what is wrong with an address, without connecting. The error never quotes the address, which may hold a
// password.
func ParseURL(rawURL string) error {
	_, err := parseURL(rawURL)
	return err
}

func parseURL(rawURL string) (address, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	a, known := schemes[scheme]
	if !found || !known {
		return address{}, errors.New("the address is not a Redis's: write " + examples)
	}
	if strings.ContainsAny(rest, "?#") {
		return address{}, errors.New("the address has options, and there are none: write " + examples)
	}
	if strings.Count(rest, "@") > 1 {
		return address{}, errors.New("the address has more than one @: write one of a user's name or password as %40")
	}
	if user, after, found := strings.Cut(rest, "@"); found {
		if err := a.parseUser(user); err != nil {
			return address{}, err
		}
		rest = after
	}
	hosts, path, _ := strings.Cut(rest, "/")
	if err := a.parseHosts(hosts); err != nil {
		return address{}, err
	}
	if err := a.parsePath(path); err != nil {
		return address{}, err
	}
	return a, nil
}

func (a *address) parseUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var err, err2 error
	a.user, err = url.PathUnescape(user)
	a.password, err2 = url.PathUnescape(password)
	if err != nil || err2 != nil || strings.ContainsAny(text, "/\x00") {
		// Without the text: it may be the password.
		return errors.New("the address has a user's name or password that cannot be read: write special characters as %40 and so on")
	}
	return nil
}

func (a *address) parseHosts(text string) error {
	port := "6379"
	if a.mode == sentinel {
		port = "26379"
	}
	for part := range strings.SplitSeq(text, ",") {
		host, err := parseHost(part, port)
		if err != nil {
			return err
		}
		a.hosts = append(a.hosts, host)
	}
	if a.mode == single && len(a.hosts) > 1 {
		return errors.New("the address names several hosts: write redis+sentinel:// or redis+cluster:// for them")
	}
	return nil
}

func parseHost(text, port string) (string, error) {
	host := text
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	} else if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(text, ":") {
		return "", errors.New("the address has a host that cannot be read: write host:port, and an IPv6 address as [::1]:6379")
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || strings.ContainsRune("[]%\\\"", r) || r > '~' }) {
		return "", errors.New("the address names no host, or one that cannot be: write " + examples)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the address has a port that is not a number from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

func (a *address) parsePath(path string) error {
	switch a.mode {
	case cluster:
		if path != "" {
			return errors.New("the address has a path, and a cluster has no databases to choose from: leave it out")
		}
		return nil
	case sentinel:
		name, db, _ := strings.Cut(path, "/")
		master, err := url.PathUnescape(name)
		if err != nil || master == "" || strings.ContainsFunc(master, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("the address does not say which master: write redis+sentinel://host:26379/master, with the name " +
				"from the Sentinels' configuration")
		}
		a.master = master
		path = db
	}
	if path == "" {
		return nil
	}
	n, err := strconv.ParseUint(path, 10, 16)
	if err != nil {
		return fmt.Errorf("the address has a database that is not a number: write %s", examples)
	}
	a.db = int(n)
	return nil
}
