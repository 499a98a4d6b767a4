package gate

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/stepward/stepward/internal/strictjson"
)

// maxBodyDepth is how deeply objects and arrays of a body may nest.
const maxBodyDepth = 32

var errNotJSON = errors.New("gate: body: its header does not say JSON in UTF-8")

// parseBody decodes a request body for the policy; an absent body is nil. Bodies that two parsers would read differently
// are refused, since the backend may take the other reading; so are those whose header lets a backend read them as anything
// but plain JSON: as a form, in another charset, decompressed.
func parseBody(h http.Header, data []byte) (any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if !saysJSON(h) {
		return nil, errNotJSON
	}
	body, err := strictjson.Decode(data, maxBodyDepth)
	if err != nil {
		return nil, fmt.Errorf("gate: body: %w", err)
	}
	return body, nil
}

// saysJSON accepts application/json and application/…+json (RFC 6839), in UTF-8 alone (RFC 8259 section 8.1) and not encoded.
func saysJSON(h http.Header) bool {
	types, encodings := h["Content-Type"], h["Content-Encoding"]
	if len(types) != 1 || len(encodings) > 1 || len(encodings) == 1 && !strings.EqualFold(encodings[0], "identity") {
		return false
	}
	mediaType, parameters, err := mime.ParseMediaType(types[0])
	if err != nil {
		return false
	}
	for name, value := range parameters {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	subtype, ok := strings.CutPrefix(mediaType, "application/")
	return ok && (subtype == "json" || strings.HasSuffix(subtype, "+json"))
}
