package http1

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzFraming compares where a chunked body ends with what net/http finds.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{"0\r\n\r\n", "4\r\nbody\r\n0\r\nA: b\r\n\r\nGET", "A;x\r\n0123456789\r\n0\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReaderSize(strings.NewReader(head+string(in)), 1<<20)
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // net/http refuses it; what then happens is the caller's business
		}
		want := len(in) - br.Buffered()
		frame := FramingOf(r)
		n, done, err := frame.Next(in)
		if err != nil || !done || n != want {
			t.Errorf("%q: ends at %d (done %v, %v), net/http says %d", in, n, done, err, want)
		}
	})
}
