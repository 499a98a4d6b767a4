// Package rego is the shipped policy: Rego rules, their tests and the data with Dynamic's routes.
package rego

import "embed"

// FS holds *.rego, *_test.rego and data.yaml at its root.
//
//go:embed *.rego data.yaml
var FS embed.FS
