package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// teller tells a person at a terminal what happens to a session that is used there.
type teller struct {
	ui      *ui
	session string
	// brief leaves out what mends itself without a trace: a command's output is on the
	// same terminal.
	brief bool
	last  session.State
}

func (t *teller) tell(ev daemon.StateEvent) {
	if ev.Moved != nil {
		t.moved(*ev.Moved)
		return
	}
	before := t.last
	t.last = ev.State
	switch {
	case ev.State == session.Reattaching && before != session.Reattaching && ev.Problem != nil:
		t.ui.warn(ev.Problem.Error(), "")
	case ev.State == session.Reconnecting && ev.Problem != nil && !t.brief:
		t.ui.warn(ev.Problem.Error(), "")
	case ev.State == session.Ready && before == session.Reconnecting && !t.brief:
		t.ui.say("session %s is ready again", t.session)
	case ev.State == session.Lost && ev.Problem != nil && t.brief:
		t.ui.warn(ev.Problem.Error(), ev.Problem.Hint)
	}
}

// moved says where the session is now, and what of it programs do not get.
func (t *teller) moved(m session.Move) {
	if m.To == m.From {
		t.ui.say("session %s goes on at pod %s with a new agent: connections were reset", t.session, m.To)
	} else {
		t.ui.say("session %s is pod %s now, it was %s: connections were reset", t.session, m.To, m.From)
	}
	if len(m.Env) > 0 {
		t.ui.say("programs that run keep their environment, new ones get the pod's: %s changed", strings.Join(m.Env, " "))
	}
}

// listenWait bounds the wait for the daemon to listen to: a command starts without it too.
const listenWait = 200 * time.Millisecond

// listen tells what happens to a session while a command runs in it. stop ends that.
func (a *app) listen(client *daemon.Client, name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &teller{ui: a.ui, session: name, brief: true}
	var (
		wg    sync.WaitGroup
		first sync.Once
		heard = make(chan struct{})
	)
	there := func() { first.Do(func() { close(heard) }) }
	wg.Go(func() { // ends with the session or at stop
		err := client.Follow(ctx, name, func(ev daemon.StateEvent) {
			there()
			t.tell(ev)
		})
		there()
		if err != nil && ctx.Err() == nil {
			a.ui.detail("session %s: %v", name, err)
		}
	})
	select {
	case <-heard:
	case <-time.After(listenWait):
	}
	return func() {
		cancel()
		wg.Wait()
	}
}
