package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// connectTimeout holds where the address sets none. A connection that hangs takes room in the pool for so long.
const connectTimeout = 2 * time.Second

const example = "postgres://stepward@db.internal:5432/stepward?sslmode=verify-full"

// ParseURL reports what is wrong with an address, without connecting. It takes what pgx takes: several hosts, sslmode,
// sslrootcert, connect_timeout and so on. It needs a scheme of postgres or postgresql, and says that a ledger is written where
// target_session_attrs asks for something that is not. The error never quotes the address, which may hold a password.
func ParseURL(rawURL string) error {
	_, err := parseURL(rawURL)
	return err
}

func parseURL(rawURL string) (*pgxpool.Config, error) {
	scheme, _, found := strings.Cut(rawURL, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return nil, errors.New("the address is not PostgreSQL's: write " + example)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// Its text would quote the address.
		return nil, errors.New("the address cannot be read as a URL: write " + example +
			", and a password's special characters as %40 and so on")
	}
	if err := checkQuery(u); err != nil {
		return nil, err
	}
	c, err := pgxpool.ParseConfig(rawURL)
	if err != nil {
		return nil, errors.New("the address has a part that PostgreSQL's clients do not understand (its port, an option after " +
			"the question mark, or a file that one names): write " + example)
	}
	return c, nil
}

func checkQuery(u *url.URL) error {
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("the address has options that cannot be read: write ?sslmode=verify-full&sslrootcert=/path/ca.pem")
	}
	if u.Host == "" && options.Get("host") == "" && options.Get("service") == "" {
		return errors.New("the address names no host: write " + example + ", or ?host=/run/postgresql for a socket")
	}
	modes := []string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	if !slices.Contains(modes, options.Get("sslmode")) {
		return errors.New("the address has an unknown sslmode: write sslmode=verify-full")
	}
	switch options.Get("target_session_attrs") {
	case "", "any", "primary", "prefer-standby", "read-write":
	default:
		return errors.New("the address asks for a server that takes no writes: leave target_session_attrs out")
	}
	for _, option := range []string{"sslrootcert", "sslcert", "sslkey"} {
		name := options.Get(option)
		if name == "" || name == "system" {
			continue
		}
		if _, err := os.ReadFile(name); err != nil { //nolint:gosec // the operator names the file
			return fmt.Errorf("the address's %s: %w", option, err)
		}
	}
	return nil
}

// parse is the configuration of the pool.
func (c *Config) parse() (*pgxpool.Config, error) {
	p, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		if _, err := readPassword(c.PasswordFile); err != nil {
			return nil, err
		}
		p.BeforeConnect = func(_ context.Context, to *pgx.ConnConfig) error {
			password, err := readPassword(c.PasswordFile)
			to.Password = password
			return err
		}
	}
	if c.MaxConns > 0 {
		p.MaxConns = int32(c.MaxConns)
	} else if !strings.Contains(c.URL, "pool_max_conns=") {
		p.MaxConns = DefaultMaxConns
	}
	// What is lost is looked for through another connection, which should be there then.
	p.MinIdleConns = min(2, p.MaxConns-1)
	conn := p.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	// Never a standby, whatever the address says.
	conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	conn.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "stepward"
	}
	if unverified(conn) {
		c.Log.Warn("ledger: who answers in place of the database is believed: write sslmode=verify-full and sslrootcert")
	}
	return p, nil
}

// readPassword takes a file as editors and orchestrators write it: with or without an end of line.
func readPassword(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("the password file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", errors.New("the password file is empty: write the password into it")
	}
	return password, nil
}

// unverified reports whether somebody on the way to a host could answer in its place.
func unverified(c *pgx.ConnConfig) bool {
	hosts := []*pgconn.FallbackConfig{{Host: c.Host, TLSConfig: c.TLSConfig}}
	return slices.ContainsFunc(append(hosts, c.Fallbacks...), func(h *pgconn.FallbackConfig) bool {
		return !local(h.Host) && !verified(h.TLSConfig)
	})
}

func verified(t *tls.Config) bool {
	// pgx verifies a chain by VerifyPeerCertificate where the host's name does not matter (sslmode=verify-ca).
	return t != nil && (!t.InsecureSkipVerify || t.VerifyPeerCertificate != nil || t.VerifyConnection != nil)
}

func local(host string) bool {
	network, _ := pgconn.NetworkAddress(host, 0)
	ip, err := netip.ParseAddr(host)
	return network == "unix" || host == "localhost" || err == nil && ip.IsLoopback()
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func checkSchema(name string) error {
	if !schemaName.MatchString(name) || strings.HasPrefix(name, "pg_") {
		return errors.New("the schema's name: write lower-case letters, digits and _, at most 63, and not pg_ in front")
	}
	return nil
}
