package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int64

// The units in which the file may give sizes.
const (
	KiB Size = 1 << (10 * (iota + 1))
	MiB
	GiB
)

// errSize says only that a text is no size: the text itself may come from the environment.
var errSize = errors.New("not a size")

// String renders the size in the largest unit that divides it, as the file spells it.
func (s Size) String() string {
	switch {
	case s == 0:
		return "0"
	case s%GiB == 0:
		return strconv.FormatInt(int64(s/GiB), 10) + "GiB"
	case s%MiB == 0:
		return strconv.FormatInt(int64(s/MiB), 10) + "MiB"
	case s%KiB == 0:
		return strconv.FormatInt(int64(s/KiB), 10) + "KiB"
	default:
		return strconv.FormatInt(int64(s), 10)
	}
}

func parseSize(text string) (Size, error) {
	unit := Size(1)
	for _, u := range [...]struct {
		suffix string
		size   Size
	}{{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB}} {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = number, u.size
		}
	}
	n, err := parseInt(strings.TrimSpace(text))
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return 0, errSize
	}
	return Size(n) * unit, nil
}

// parseInt reads decimal digits; YAML's underscores between them are allowed, its other bases are not.
func parseInt(text string) (int64, error) {
	return strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
}
