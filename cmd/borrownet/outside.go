package main

import (
	"fmt"
	"os"
	"sync"

	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/proc"
)

// outside warns, once per server, when programs of a session leave their work to
// one that was there before: what that starts is not in the session.
type outside struct {
	warn func(text, hint string)
	self int // the process that all of the session's descend from

	mu   sync.Mutex
	said map[string]bool // by the server's name
}

func (a *app) watchOutside() *outside {
	return &outside{warn: a.ui.warn, self: os.Getpid(), said: map[string]bool{}}
}

// connecting returns what has to be done before a program connects to the Unix
// socket at path, nil if that is nothing.
func (o *outside) connecting(path string) func() {
	s, ok := launch.ServerAt(path)
	if !ok {
		return nil
	}
	return func() {
		if pid, err := proc.Listener(path); err != nil || o.started(pid) {
			return // nobody listens, or it is the program's own
		}
		o.say(s)
	}
}

// started reports whether the process is one of the session.
func (o *outside) started(pid int) bool {
	below, err := proc.Below(o.self, pid)
	return err == nil && below
}

func (o *outside) say(s launch.Server) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said[s.Name] {
		return
	}
	o.said[s.Name] = true
	o.warn(fmt.Sprintf("%s was started outside of the session: %s are not in the pod", s.Name, s.Starts), s.Hint)
}
