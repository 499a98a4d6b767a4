//go:build !unix

package ledger

import (
	"context"
	"os"
)

// lockFile leaves locking to bbolt, which tries once.
func lockFile(context.Context, *os.File) error { return nil }

func lockHolder(*os.File) string { return "another process" }
