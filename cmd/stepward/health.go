package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// healthVerb asks the admin listener of a running Stepward: exit 0 when ready, 1 when not.
func healthVerb(ctx context.Context, c *call) error {
	admin := c.flags.String("admin", "127.0.0.1:8081", "address of the admin listener")
	if err := c.parse(0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+*admin+"/readyz", nil)
	if err != nil {
		return c.misuse("--admin %q is not an address such as 127.0.0.1:8081", *admin)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: nil}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("health: no answer from %s: %w", *admin, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("health: read answer: %w", err)
	}
	fmt.Fprintf(c.stdout, "%s\n", body)
	if res.StatusCode != http.StatusOK {
		return errSaid
	}
	return nil
}
