package dnsproxy

import (
	"context"
	"errors"
	"net"

	"github.com/miekg/dns"
)

var errBusy = errors.New("too many queries in flight")

// call is an upstream query in flight. msg and err are set before done is closed.
type call struct {
	done chan struct{}
	msg  *dns.Msg // shared by those who wait: copied, never changed
	err  error
}

// ask returns the nameservers' answer to q, which belongs to the caller. Whoever asks the same at the same time gets
// the same answer; the query itself goes on when its first caller leaves, until it is answered, its time is up or p is
// closed.
func (p *Proxy) ask(ctx context.Context, q query) (*dns.Msg, error) {
	c, err := p.join(q)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.msg.Copy(), nil
}

// join returns the call of q, started if it was not.
func (p *Proxy) join(q query) (*call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if c, ok := p.calls[q]; ok {
		p.stats.coalesced.Add(1)
		return c, nil
	}
	if len(p.calls) >= maxCalls {
		return nil, errBusy
	}
	c := &call{done: make(chan struct{})}
	p.calls[q] = c
	p.wg.Go(func() { p.run(q, c) })
	return c, nil
}

// run makes the call; it ends by p.timeout or Close.
func (p *Proxy) run(q query, c *call) {
	ctx, cancel := context.WithTimeout(p.ctx, p.timeout)
	defer cancel()
	c.msg, c.err = p.exchange(ctx, q)
	p.mu.Lock()
	delete(p.calls, q)
	p.mu.Unlock()
	close(c.done)
}
