// Package stdiotest is a container whose standard streams are attached to, as container runtimes do it: its standard input
// takes what all clients send as it comes, its standard output goes to all of them and to a log.
package stdiotest

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

// Container is a running container. Its process reads In and writes Out.
type Container struct {
	In  *io.PipeReader
	Out *io.PipeWriter

	stdin  *io.PipeWriter
	stdout *io.PipeReader

	mu       sync.Mutex
	log      bytes.Buffer
	attached []*Attached
}

// Attached is a client's connection.
type Attached struct {
	c    *Container
	out  *io.PipeReader
	feed *io.PipeWriter
}

// Start starts a container. It ends when its process closes Out.
func Start() *Container {
	c := &Container{}
	c.In, c.stdin = io.Pipe()
	c.stdout, c.Out = io.Pipe()
	go c.run()
	return c
}

func (c *Container) run() {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.stdout.Read(buf)
		c.mu.Lock()
		c.log.Write(buf[:n])
		all := slices.Clone(c.attached)
		c.mu.Unlock()
		for _, a := range all {
			_, _ = a.feed.Write(buf[:n]) // who has left gets nothing; who does not read holds up all
		}
		if err != nil {
			for _, a := range all {
				a.feed.Close()
			}
			return
		}
	}
}

// Attach attaches a client, which must read.
func (c *Container) Attach() *Attached {
	a := &Attached{c: c}
	a.out, a.feed = io.Pipe()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attached = append(c.attached, a)
	return a
}

// Type writes b to the container's standard input, as some client does.
func (c *Container) Type(b []byte) error {
	_, err := c.stdin.Write(b)
	return err
}

// Cut breaks every client's connection.
func (c *Container) Cut() {
	c.mu.Lock()
	all := c.attached
	c.attached = nil
	c.mu.Unlock()
	for _, a := range all {
		a.Close()
	}
}

// Log returns what the process has written.
func (c *Container) Log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// Read implements io.Reader.
func (a *Attached) Read(p []byte) (int, error) { return a.out.Read(p) }

// Write implements io.Writer.
func (a *Attached) Write(p []byte) (int, error) { return a.c.stdin.Write(p) }

// Close leaves the container.
func (a *Attached) Close() error { return a.out.Close() }
