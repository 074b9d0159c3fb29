package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/wire"
)

// Borrower is an agent on a pod, and who it is for.
type Borrower struct {
	Pod       string    `json:"pod"`
	UID       string    `json:"uid"`       // of the pod
	Container string    `json:"container"` // the agent's
	ClientKey string    `json:"clientKey"`
	State     Borrowing `json:"state"`
	// Client is what the client calls itself, which nobody has proven: USER@HOST, ""
	// if it does not say or if the agent's log may not be read.
	Client string `json:"client,omitempty"`
	// Session is the session of the caller's own that this is, which the caller fills in.
	Session string `json:"session,omitempty"`
	// Since is when the state began; the agent's start where its log may not be read.
	Since time.Time `json:"since,omitzero"`
}

// Borrowing is what an agent does.
type Borrowing string

// What agents do.
const (
	Starting  Borrowing = "starting" // its container does not run yet
	Borrowed  Borrowing = "borrowed" // it has a client
	Parked    Borrowing = "parked"   // it had one, and waits for the next
	Occupancy Borrowing = "unknown"  // it runs; its log may not be read, or is full of a link over attach
)

func borrower(a AgentState) Borrower {
	b := Borrower{Pod: a.Pod, UID: a.UID, Container: a.Container, ClientKey: a.ClientKey, State: Occupancy, Since: a.Started}
	if a.State == StateWaiting {
		b.State = Starting
	}
	return b
}

const (
	// maxAsked bounds the logs that are read for one list, askedAtOnce those at a time.
	maxAsked    = 128
	askedAtOnce = 8
	// recordLines is how much of an agent's log is read: the record of a session has
	// about seventy lines at most.
	recordLines = "200"
)

// nameBorrowers reads in the agents' logs who has them now. What may not be read
// stays unknown.
func (c *Client) nameBorrowers(ctx context.Context, offers []Offer) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, askedAtOnce)
	asked := 0
	for i := range offers {
		for j := range offers[i].Borrowers {
			b := &offers[i].Borrowers[j]
			if b.State == Starting || asked == maxAsked {
				continue
			}
			asked++
			t := &Target{Namespace: offers[i].Namespace, Pod: b.Pod}
			wg.Go(func() {
				room <- struct{}{}
				defer func() { <-room }()
				if err := c.readRecord(ctx, t, b); err != nil {
					c.log.Debug("read an agent's log", "pod", b.Pod, "container", b.Container, "err", err)
				}
			})
		}
	}
}

// readRecord reads in an agent's log what it does now.
func (c *Client) readRecord(ctx context.Context, t *Target, b *Borrower) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := c.openLog(ctx, t, b.Container, url.Values{"tailLines": {recordLines}})
	if err != nil {
		return err
	}
	defer body.Close()
	b.State = Parked
	lines := bufio.NewScanner(io.LimitReader(body, wire.MaxMessage))
	lines.Buffer(nil, wire.MaxMessage)
	crowded, told := false, false
	for lines.Scan() {
		crowded = crowded || bytes.IndexByte(lines.Bytes(), stdio.Mark) == 0
		told = b.heed(lines.Bytes()) || told
	}
	if crowded && !told { // the link over attach has pushed the record out
		b.State = Occupancy
	}
	return lines.Err()
}

// heed takes what a line of an agent's log says of its sessions, and reports whether
// it says something.
func (b *Borrower) heed(line []byte) bool {
	var l struct {
		Time time.Time `json:"time"`
		Msg  string    `json:"msg"`
		Who  string    `json:"who"`
	}
	if json.Unmarshal(line, &l) != nil {
		return false
	}
	switch l.Msg {
	case wire.LogSessionStarts:
		b.State, b.Since, b.Client = Borrowed, l.Time, ""
	case wire.LogClient:
		b.Client = wire.ClientName(l.Who)
	case wire.LogSessionEnds:
		b.State, b.Since = Parked, l.Time
	default:
		return false
	}
	return true
}
