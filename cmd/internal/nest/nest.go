// Package nest lets a run inside another one have a session of its own. A process
// tree can have one supervisor, so the inner run asks the outer one to answer for
// its part of the tree in the name of another session.
//
// The outer run serves a unix socket in the abstract namespace, which leaves no
// file; the inner one holds a conn to it as long as it has descendants.
//
// The package is for Linux.
package nest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
)

const (
	granted  = "granted"
	farewell = "farewell" // all descendants of the inner run have ended

	maxInner   = 64
	maxMessage = 1 << 20
)

// Enter opens the way into the session at place, which has a namespace. Close the
// result when nobody needs its sockets any more.
func Enter(place session.Place) (supervisor.Identity, io.Closer, error) {
	id := supervisor.Identity{Addrs: place.Addrs, Remote: place.Remote, Mark: launch.SessionVar + "=" + place.Session}
	sockets, err := netns.Dial(place.Socket)
	if err != nil {
		return id, nil, err
	}
	id.Sockets = sockets
	board, err := switchboard.Dial(place.Ports)
	if err != nil {
		return id, nil, errors.Join(err, sockets.Close())
	}
	attention, err := board.Attend(context.Background())
	if err != nil {
		return id, nil, errors.Join(err, sockets.Close())
	}
	id.Ports = board
	return id, closers{attention, sockets}, nil
}

type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// Outer is the outer run's end.
type Outer struct {
	tree *supervisor.Tree
	ln   *net.UnixListener
	log  *slog.Logger
	wg   sync.WaitGroup // accept, and one per inner run

	mu    sync.Mutex
	conns map[*net.UnixConn]bool // false once closed
}

// Listen serves inner runs of the tree until Close. logger may be nil.
func Listen(tree *supervisor.Tree, logger *slog.Logger) (*Outer, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// The kernel names it: an abstract address that nobody has.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for runs inside: %w", err)
	}
	o := &Outer{tree: tree, ln: ln, log: logger, conns: map[*net.UnixConn]bool{}}
	o.wg.Go(o.accept) // ends at Close
	return o, nil
}

// Env is the entry of the environment by which inner runs find this one.
func (o *Outer) Env() string { return launch.HookVar + "=" + o.ln.Addr().String() }

// Close ends the service and joins it. Nothing of the tree may be left.
func (o *Outer) Close() error {
	err := o.ln.Close()
	o.mu.Lock()
	for c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
	return err
}

func (o *Outer) accept() {
	for {
		c, err := o.ln.AcceptUnix()
		if err != nil {
			return
		}
		o.mu.Lock()
		full := len(o.conns) >= maxInner
		if !full {
			o.conns[c] = true
		}
		o.mu.Unlock()
		if full {
			c.Close()
			continue
		}
		o.wg.Go(func() { // ends with the inner run, or at Close
			defer func() {
				o.mu.Lock()
				delete(o.conns, c)
				o.mu.Unlock()
				c.Close()
			}()
			if err := o.serve(c); err != nil {
				o.log.Debug("run inside", "err", err)
			}
		})
	}
}

// serve answers one inner run for as long as it lives.
func (o *Outer) serve(c *net.UnixConn) error {
	pid, err := peer(c)
	if err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(c, maxMessage))
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var place session.Place
	if err := json.Unmarshal(line, &place); err != nil {
		return err
	}
	id, way, err := Enter(place)
	if err != nil {
		_, werr := fmt.Fprintln(c, strings.ReplaceAll(err.Error(), "\n", " "))
		return errors.Join(err, werr)
	}
	defer way.Close()
	remove := o.tree.Add(pid, id)
	_, err = fmt.Fprintln(c, granted)
	if err != nil {
		remove(true) // it has started nothing yet
		return err
	}
	last, err := in.ReadString('\n')
	remove(err == nil && strings.TrimSpace(last) == farewell)
	return nil
}

// Inner is an inner run's hold on its identity.
type Inner struct{ conn net.Conn }

// Join asks the outer run, which env names, to take this process and all that it
// starts for programs of the session at place.
func Join(addr string, place session.Place) (*Inner, error) {
	c, err := net.Dial("unix", addr)
	if err != nil {
		return nil, fmt.Errorf("reach the run around this one: %w", err)
	}
	place.Env = nil // it is for the program alone
	text, err := json.Marshal(place)
	if err == nil {
		_, err = c.Write(append(text, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	answer, err := bufio.NewReader(io.LimitReader(c, maxMessage)).ReadString('\n')
	if answer = strings.TrimSpace(answer); answer != granted {
		if err == nil {
			err = errors.New(answer)
		}
		return nil, errors.Join(fmt.Errorf("the run around this one: %w", err), c.Close())
	}
	return &Inner{conn: c}, nil
}

// Leave gives the identity back. Every process below must have ended.
func (i *Inner) Leave() error {
	_, err := fmt.Fprintln(i.conn, farewell)
	return errors.Join(err, i.conn.Close())
}
