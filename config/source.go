package config

// source remembers where each value stood, so that problems found after decoding can say so too.
type source struct {
	file string
	at   map[string]place // by field path; only what the file names
}

// place is where a value stands and how the file spells it, before the environment came in.
type place struct {
	line, column int
	text         string // of a scalar
	expanded     bool   // text names environment variables
}
