package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

const maxBodyDepth = 32

var errBody = errors.New("gate: body is not one unambiguous JSON value")

// parseBody decodes a request body for the policy; an absent body is nil. Bodies that two parsers would read differently
// are refused: invalid UTF-8, trailing data, and members that are repeated or differ only in case, since a lenient backend
// may take the other one.
func parseBody(data []byte) (any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if !utf8.Valid(data) {
		return nil, errBody
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	value, err := parseValue(dec, 0)
	if err != nil {
		return nil, errBody
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errBody
	}
	return value, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil || depth > maxBodyDepth {
		return nil, errBody
	}
	switch tok {
	case json.Delim('{'):
		return parseObject(dec, depth)
	case json.Delim('['):
		return parseArray(dec, depth)
	}
	return tok, nil
}

func parseObject(dec *json.Decoder, depth int) (any, error) {
	object, folded := map[string]any{}, map[string]struct{}{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, errBody
		}
		key := strings.ToLower(strings.ToUpper(name)) // folds U+017F and U+212A onto ASCII, as encoding/json does
		if _, repeated := folded[key]; repeated {
			return nil, errBody
		}
		folded[key] = struct{}{}
		if object[name], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return object, err
}

func parseArray(dec *json.Decoder, depth int) (any, error) {
	array := []any{}
	for dec.More() {
		value, err := parseValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
	_, err := dec.Token()
	return array, err
}
