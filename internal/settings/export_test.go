package settings

// Sound reports whether the cache takes s.
func Sound(s *Settings) bool { return s.sound() }
