package gate

import (
	"fmt"

	"github.com/stepward/stepward/internal/strictjson"
)

// maxBodyDepth is how deeply objects and arrays of a body may nest.
const maxBodyDepth = 32

// parseBody decodes a request body for the policy; an absent body is nil. Bodies that two parsers would read differently
// are refused, since the backend may take the other reading.
func parseBody(data []byte) (any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	body, err := strictjson.Decode(data, maxBodyDepth)
	if err != nil {
		return nil, fmt.Errorf("gate: body: %w", err)
	}
	return body, nil
}
