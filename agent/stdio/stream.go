package stdio

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// goodbye is how long Close waits for a write that is under way, and then tries to tell the agent.
const goodbye = 100 * time.Millisecond

// Stream is the client's end of a stream. One may read while another writes.
type Stream struct {
	rwc    io.ReadWriteCloser // an attached connection
	id     uint64
	in     *decoder
	rest   []byte // of the record read last
	read   uint32 // number of the next record
	over   error  // that ended reading
	closed atomic.Bool
	once   sync.Once
	err    error // of the first Close

	writing chan struct{} // holds one while somebody writes, who alone uses the rest
	enc     encoder
	buf     []byte
	wrote   uint32 // number of the next record
}

// Open opens a stream on an attached connection, which belongs to it from then on, and returns the agent's greeting too. ctx
// bounds the opening only.
func Open(ctx context.Context, rwc io.ReadWriteCloser) (*Stream, []byte, error) {
	var id [8]byte
	rand.Read(id[:]) // never fails
	s := &Stream{rwc: rwc, id: binary.BigEndian.Uint64(id[:]), in: newDecoder(rwc), writing: make(chan struct{}, 1)}
	stop := context.AfterFunc(ctx, func() { rwc.Close() })
	greeting, err := s.open()
	if !stop() {
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open stream to the agent: %w", err), rwc.Close())
	}
	return s, greeting, nil
}

func (s *Stream) open() ([]byte, error) {
	// A connection that broke may have left half a line.
	line := s.enc.append([]byte{'\n'}, record{stream: s.id, kind: kindOpen})
	if _, err := s.rwc.Write(line); err != nil {
		return nil, err
	}
	s.wrote = 1
	r, err := s.next()
	if err != nil {
		return nil, err
	}
	if r.kind != kindOpen {
		return nil, errGap
	}
	return append([]byte(nil), r.payload...), nil
}

// next returns the stream's next record.
func (s *Stream) next() (record, error) {
	for {
		r, err := s.in.next()
		switch {
		case err != nil:
			return r, err
		case r.stream != s.id:
			continue
		case r.number != s.read:
			return r, errGap
		}
		s.read++
		return r, nil
	}
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 && s.over == nil {
		r, err := s.next()
		switch {
		case s.closed.Load():
			s.over = net.ErrClosed
		case err != nil:
			s.over = err
		case r.kind == kindEnd:
			s.over = io.EOF
		case r.kind == kindData:
			s.rest = r.payload
		}
	}
	if len(s.rest) == 0 {
		return 0, s.over
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// maxWrite bounds the data that is made lines of at a time.
const maxWrite = 5 * maxPayload

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	for done := 0; done < len(p); {
		if s.closed.Load() {
			return done, net.ErrClosed
		}
		n := min(len(p)-done, maxWrite)
		s.buf, s.wrote = s.enc.appendData(s.buf[:0], p[done:done+n], s.id, s.wrote)
		if _, err := s.rwc.Write(s.buf); err != nil {
			if s.closed.Load() {
				err = net.ErrClosed
			}
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// Close ends the stream and closes the connection. A writer that is blocked does not hold it up for long.
func (s *Stream) Close() error {
	s.once.Do(func() {
		s.closed.Store(true)
		blocked := time.NewTimer(goodbye)
		defer blocked.Stop()
		select {
		case s.writing <- struct{}{}:
			late := time.AfterFunc(goodbye, func() { s.rwc.Close() })
			_, _ = s.rwc.Write(s.enc.append(s.buf[:0], record{stream: s.id, number: s.wrote, kind: kindEnd}))
			late.Stop()
			<-s.writing
		case <-blocked.C: // the agent finds out by itself
		}
		s.err = s.rwc.Close()
	})
	return s.err
}
