package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// path is a way to the API server, of this process's: what goes through it is delayed, and can be cut. netem does both
// better where the kernel has it.
type path struct {
	listener net.Listener
	server   string        // where it leads
	delay    time.Duration // each way

	mu    sync.Mutex
	conns map[net.Conn]bool // of both sides; guarded by mu
}

const (
	// pathPiece and pathPieces bound what is on its way in one direction of a connection: 32 MiB, more than any window.
	pathPiece  = 64 << 10
	pathPieces = 512
)

// openPath returns a path to the API server with the round trip, the environment of processes that use it, and a function
// that ends it.
func openPath(roundTrip time.Duration) (*path, []string, func(), error) {
	server, err := output([]string{"kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"})
	if err != nil {
		return nil, nil, nil, err
	}
	u, err := url.Parse(string(server))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("API server %q: %w", server, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	p := &path{listener: l, server: u.Host, delay: roundTrip / 2, conns: make(map[net.Conn]bool)}
	config, err := p.kubeconfig(u.Hostname())
	if err != nil {
		l.Close()
		return nil, nil, nil, err
	}
	go p.serve() // ends with the listener
	stop := func() {
		l.Close()
		p.cut()
		os.Remove(config)
	}
	return p, append(os.Environ(), "KUBECONFIG="+config), stop, nil
}

// kubeconfig writes one that leads over p.
func (p *path) kubeconfig(host string) (string, error) {
	text, err := output([]string{"kubectl", "config", "view", "--minify", "--flatten"})
	if err != nil {
		return "", err
	}
	name, err := output([]string{"kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].name}"})
	if err != nil {
		return "", err
	}
	file := filepath.Join(os.TempDir(), fmt.Sprintf("bench-kubeconfig-%d", os.Getpid()))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", err
	}
	_, err = output([]string{"kubectl", "config", "set-cluster", string(name), "--kubeconfig", file,
		"--server", "https://" + p.listener.Addr().String(), "--tls-server-name", host})
	return file, err
}

func (p *path) serve() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.carry(near)
	}
}

// carry joins near to the server until one of them ends.
func (p *path) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer far.Close()
	p.note(near, far, true)
	defer p.note(near, far, false)
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			p.pass(way[1], way[0])
			done <- struct{}{}
		}()
	}
	<-done
	near.Close()
	far.Close()
	<-done
}

func (p *path) note(near, far net.Conn, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open {
		p.conns[near], p.conns[far] = true, true
		return
	}
	delete(p.conns, near)
	delete(p.conns, far)
}

// pass copies from src to dst, each piece after the delay, until one of them ends.
func (p *path) pass(dst, src net.Conn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	way := make(chan piece, pathPieces)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for one := range way {
			time.Sleep(time.Until(one.due))
			if _, err := dst.Write(one.data); err != nil {
				src.Close()
				for range way { // until the reader has noticed
				}
				return
			}
		}
	}()
	for {
		data := make([]byte, pathPiece)
		n, err := src.Read(data)
		if n > 0 {
			way <- piece{data[:n], time.Now().Add(p.delay)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	<-over
}

// cut ends every connection.
func (p *path) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}
