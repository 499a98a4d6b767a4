package token

import "github.com/stepward/stepward/internal/strictjson"

// maxDepth is how deeply objects and arrays may nest; the outermost object is 1.
const maxDepth = 8

func decodeObject(text []byte) (map[string]any, error) { return strictjson.Object(text, maxDepth) }

func fold(name string) string { return strictjson.Fold(name) }
