package standing

// Fill remembers as many answers as there is room for.
func (c *Checker) Fill(session func(int) Session) {
	for i := range maxAnswers {
		c.remember(keyOf(session(i)), answer{began: c.config.Now()})
	}
}

// Len is how many answers are remembered.
func (c *Checker) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answers)
}
