package ledger

// table is a slice that grows without moving: to copy a million entries would stop every request for that long.
type table[T any] struct {
	chunks []*[tableChunk]T
	len    uint32
}

const tableChunk = 256

func (t *table[T]) at(i uint32) *T { return &t.chunks[i/tableChunk][i%tableChunk] }

func (t *table[T]) push(v T) {
	if int(t.len/tableChunk) == len(t.chunks) {
		t.chunks = append(t.chunks, new([tableChunk]T))
	}
	*t.at(t.len) = v
	t.len++
}

// pop drops the last one. One chunk stays to spare, so that a table at the edge of two does not make one again and again.
func (t *table[T]) pop() {
	t.len--
	if used := int((t.len + tableChunk - 1) / tableChunk); len(t.chunks) > used+1 {
		t.chunks[len(t.chunks)-1] = nil
		t.chunks = t.chunks[:len(t.chunks)-1]
	}
}
