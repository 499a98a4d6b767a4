package main

import (
	"context"
	"errors"
	"time"

	"github.com/stepward/stepward/ledger"
)

// meteredStore tells how long the ledger took and what it said.
type meteredStore struct {
	ledger.Store
	observe func(operation, result string, took time.Duration)
}

func (m meteredStore) Reserve(ctx context.Context, c ledger.Claim) error {
	began := time.Now()
	err := m.Store.Reserve(ctx, c)
	m.observe("reserve", ledgerResult(err), time.Since(began))
	return err
}

func (m meteredStore) Commit(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	began := time.Now()
	err := m.Store.Commit(ctx, k, o)
	m.observe("commit", ledgerResult(err), time.Since(began))
	return err
}

func (m meteredStore) Release(ctx context.Context, k ledger.Key, o ledger.Owner) error {
	began := time.Now()
	err := m.Store.Release(ctx, k, o)
	m.observe("release", ledgerResult(err), time.Since(began))
	return err
}

// ledgerResult is the closed set of the metric's results.
func ledgerResult(err error) string {
	for _, r := range []struct {
		is   error
		name string
	}{
		{ledger.ErrReserved, "reserved"}, {ledger.ErrConsumed, "consumed"}, {ledger.ErrFull, "full"}, {ledger.ErrFenced, "fenced"},
		{ledger.ErrUnavailable, "unavailable"},
	} {
		if errors.Is(err, r.is) {
			return r.name
		}
	}
	if err != nil {
		return "unknown"
	}
	return "ok"
}
