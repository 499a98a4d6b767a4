package main

import (
	"context"
	"errors"
)

func demoVerb(_ context.Context, _ *call) error { return errors.New("demo: not built yet") }
