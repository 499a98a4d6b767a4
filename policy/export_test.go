package policy

// Reads lists the paths below input that the compiled policy can read.
func (s *Snapshot) Reads() [][]string { return s.reads }
