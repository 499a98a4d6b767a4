// Package strictjson reads JSON for which there is only one reading.
//
// What is judged here is read again by a backend, and parsers differ: about members that are repeated or written in another
// case, about lone surrogates, bytes that are not UTF-8, numbers beyond float64, and what follows the value. A text about
// which they could differ is refused.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Faults of a text. They name the fault and never the text.
var (
	errSyntax    = errors.New("not JSON")
	errNotObject = errors.New("not a JSON object")
	errUTF8      = errors.New("not valid UTF-8")
	errSurrogate = errors.New("lone surrogate")
	errDuplicate = errors.New("duplicate member")
	errDepth     = errors.New("nested too deeply")
	errNumber    = errors.New("number out of range")
)

// Decode reads a text that is one JSON value: valid UTF-8 (RFC 8259 section 8.1), no lone surrogates (8.2), no member twice
// in any object (section 4), not even in other case, since readers that fold as encoding/json does would take the last of
// them; no number beyond float64 in either direction, nothing after the value. Objects and arrays nest at most depth levels.
// Numbers are json.Number, so that no digit is lost; objects are map[string]any, arrays []any.
func Decode(text []byte, depth int) (any, error) {
	switch {
	case !utf8.Valid(text):
		return nil, errUTF8
	case !json.Valid(text):
		return nil, errSyntax
	case hasLoneSurrogate(text):
		return nil, errSurrogate
	}
	d := decoder{rest: text}
	return d.value(depth)
}

// Object is Decode for a text that must be an object.
func Object(text []byte, depth int) (map[string]any, error) {
	v, err := Decode(text, depth)
	members, isObject := v.(map[string]any)
	switch {
	case errors.Is(err, errSyntax), err == nil && !isObject:
		return nil, errNotObject
	case err != nil:
		return nil, err
	}
	return members, nil
}

// decoder walks over a text of which encoding/json has said that it is JSON, so every byte is what it must be. Its own decoder
// would look at each byte several times more, and costs four times as much.
type decoder struct{ rest []byte }

// next skips white space, colons and commas, which stand where they must, and returns the byte behind them.
func (d *decoder) next() byte {
	for {
		switch c := d.rest[0]; c {
		case ' ', '\t', '\n', '\r', ':', ',':
			d.rest = d.rest[1:]
		default:
			return c
		}
	}
}

// value reads one value. The depth that is left is handed down; a container needs one of it.
func (d *decoder) value(depth int) (any, error) {
	switch c := d.next(); c {
	case '{', '[':
		if depth < 1 {
			return nil, errDepth
		}
		d.rest = d.rest[1:]
		if c == '{' {
			return d.members(depth - 1)
		}
		return d.elements(depth - 1)
	case '"':
		return d.text()
	case 't':
		d.rest = d.rest[len("true"):]
		return true, nil
	case 'f':
		d.rest = d.rest[len("false"):]
		return false, nil
	case 'n':
		d.rest = d.rest[len("null"):]
		return nil, nil //nolint:nilnil // null is a value
	}
	return d.number()
}

func (d *decoder) members(depth int) (any, error) {
	members := make(map[string]any)
	var odd map[string]bool // the folded forms of names that are not their own
	for d.next() != '}' {
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		folded := Fold(name)
		if _, twice := members[folded]; twice || odd[folded] {
			return nil, errDuplicate
		}
		if folded != name {
			if odd == nil {
				odd = make(map[string]bool)
			}
			odd[folded] = true
		}
		if members[name], err = d.value(depth); err != nil {
			return nil, err
		}
	}
	d.rest = d.rest[1:]
	return members, nil
}

func (d *decoder) elements(depth int) (any, error) {
	elements := []any{}
	for d.next() != ']' {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	d.rest = d.rest[1:]
	return elements, nil
}

// text reads a string. What escapes mean is left to encoding/json.
func (d *decoder) text() (string, error) {
	end, escaped := 1, false
	for ; d.rest[end] != '"'; end++ {
		if d.rest[end] == '\\' {
			escaped = true
			end++
		}
	}
	quoted := d.rest[:end+1]
	d.rest = d.rest[end+1:]
	if !escaped {
		return string(quoted[1:end]), nil
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return "", errSyntax
	}
	return s, nil
}

func (d *decoder) number() (any, error) {
	end := 0
	for end < len(d.rest) && strings.IndexByte("+-.0123456789Ee", d.rest[end]) >= 0 {
		end++
	}
	number := string(d.rest[:end])
	d.rest = d.rest[end:]
	if !isModest(number) {
		return nil, errNumber
	}
	return json.Number(number), nil
}

// maxNumber is far more digits than float64 or any amount of money has.
const maxNumber = 64

// isModest reports whether a number is one that float64 can tell from infinity and from zero. A policy engine computes with it
// exactly: 1e999999999 is a few bytes that cost gigabytes, and OPA's comparison panics at 1e-600000000.
// Its length is bounded for the same reason: a million digits take seconds to multiply.
func isModest(number string) bool {
	if len(number) > maxNumber {
		return false
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsInf(f, 0) {
		return false
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(number), "e")
	return f != 0 || !strings.ContainsAny(mantissa, "123456789")
}

// Fold maps names that differ only by case to one form: lower case for ASCII and whatever folds to it (U+017F is s, U+212A
// is k), the least rune of the orbit for the rest. It is the equivalence of strings.EqualFold and of encoding/json.
func Fold(name string) string {
	if isFolded(name) {
		return name
	}
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return lower(r)
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return lower(least)
	}, name)
}

// isFolded is true for the names that need no folding: ASCII without capitals.
func isFolded(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func lower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// hasLoneSurrogate looks for \ud800 to \udfff without its other half. encoding/json reads every such escape as U+FFFD, other
// readers keep them apart. The text is valid JSON, so backslashes stand only in strings and \u has its four digits.
func hasLoneSurrogate(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return false
		}
		escape := text[i+1:]
		if text = escape[1:]; escape[0] != 'u' {
			continue
		}
		unit := codeUnit(text)
		text = text[4:]
		switch {
		case unit < 0xd800 || unit > 0xdfff:
		case unit > 0xdbff || len(text) < 6 || text[0] != '\\' || text[1] != 'u':
			return true
		default:
			if low := codeUnit(text[2:]); low < 0xdc00 || low > 0xdfff {
				return true
			}
			text = text[6:]
		}
	}
}

func codeUnit(text []byte) uint64 {
	unit, _ := strconv.ParseUint(string(text[:4]), 16, 32) // four hex digits: json.Valid saw them
	return unit
}
