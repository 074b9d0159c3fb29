package link

import "testing"

// TestChunksFit: what is kept until it is acknowledged costs little more memory than it has bytes.
func TestChunksFit(t *testing.T) {
	l := New(Config{})
	for _, size := range []int{1, 100, smallChunk - 1, smallChunk, 16 << 10, 20 << 10, frameHeader + maxDatagram, 100 << 10, maxWrite} {
		c := l.newChunk(size)
		room := cap(c.buf) - chunkHead
		if room < size || room > 4*size+chunkHead {
			t.Errorf("a chunk for %d bytes takes %d", size, room)
		}
		c.buf = append(c.buf, make([]byte, size)...)
		if cap(c.buf)-chunkHead != room {
			t.Errorf("a chunk for %d bytes has grown", size)
		}
		l.releaseLocked(c)
	}
}
