package dnsproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	idleTimeout  = 30 * time.Second // RFC 7766 §6.2.3: "of the order of a few seconds" at the least
	writeTimeout = 10 * time.Second // for a client that does not read
	maxPipelined = 32               // queries of one connection being answered; more are read later
)

// ServeTCP answers the queries that arrive on c (RFC 7766: several per connection, answered in any order) and
// returns when the client has closed its side and has its answers, when c is idle or broken, or when ctx ends. It
// closes c.
func (p *Proxy) ServeTCP(ctx context.Context, c net.Conn) {
	defer c.Close()
	if !p.track(c) {
		return
	}
	defer p.untrack(c)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()

	var answers sync.WaitGroup
	defer answers.Wait()
	defer cancel()
	s := &stream{
		p: p, c: c, cancel: cancel,
		slots:   make(chan struct{}, maxPipelined),
		writing: make(chan struct{}, 1),
	}
	r := bufio.NewReader(c)
	for {
		if err := c.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return
		}
		query, err := readFrame(r)
		if err == io.EOF {
			answers.Wait() // the client may have closed its sending side only
			return
		}
		if err != nil {
			return
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		answers.Go(func() { s.answer(ctx, query) })
	}
}

// stream is the server's side of a connection.
type stream struct {
	p       *Proxy
	c       net.Conn
	cancel  context.CancelFunc // ends the connection
	slots   chan struct{}      // one per query being answered
	writing chan struct{}      // holds one while c is written to
}

// answer answers one query. It ends with the answer, within the time of one, or when the connection ends.
func (s *stream) answer(ctx context.Context, query []byte) {
	defer func() { <-s.slots }()
	reply := s.p.Answer(ctx, query, false)
	if reply == nil { // not a query: whatever the client speaks, it is not DNS
		s.cancel()
		return
	}
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return
	}
	err := s.c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		err = writeFrame(s.c, reply)
	}
	if err == nil {
		err = s.c.SetReadDeadline(time.Now().Add(idleTimeout)) // idle from the last answer on
	}
	if err != nil {
		s.cancel()
	}
}

// track notes c for Close and reports whether it may be served.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= maxConns {
		return false
	}
	p.conns[c] = struct{}{}
	p.wg.Add(1)
	return true
}

func (p *Proxy) untrack(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	p.wg.Done()
}

// readFrame reads a message with the length in front (RFC 1035 §4.2.2). The error is io.EOF only between messages.
func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("read message of %d bytes: %w", len(buf), err)
	}
	return buf, nil
}

// writeFrame writes a message with the length in front, in one piece: some servers need them in one segment.
func writeFrame(w io.Writer, msg []byte) error {
	if len(msg) > 0xffff {
		return fmt.Errorf("write message of %d bytes: too long", len(msg))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...))
	return err
}
