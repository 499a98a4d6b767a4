package config

import _ "embed"

//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of the file, generated from the types and their comments. It knows shapes
// and words; what lies between fields only Load knows. ${NAME} is allowed wherever Load allows it. The error is always nil
// and stands for a schema that would have to be built first.
func Schema() ([]byte, error) { return append([]byte(nil), schema...), nil }
