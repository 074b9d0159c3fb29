package router

import (
	"net/netip"
	"sync"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

const defaultMaxFlows = 65536

// class is how long a flow may be silent. Flows of a class are in the order of their last packets, so that the first
// of a class is the first to expire.
type class uint8

const (
	classEcho    class = iota
	classClosing       // TCP after FIN from both sides, or RST
	classOpening       // TCP before the first reply
	classUDP
	classOpen // TCP
	numClasses
)

// timeout returns how long a flow of class c stays without a packet.
func (c class) timeout() time.Duration {
	switch c {
	case classEcho:
		return 30 * time.Second
	case classClosing:
		return 60 * time.Second
	case classOpening:
		return 150 * time.Second // longer than Linux repeats its SYN (127 s)
	case classUDP:
		return 180 * time.Second
	}
	return 24 * time.Hour
}

// owner says who opened a flow, and so where the packets of the other side go.
type owner uint8

const (
	nobody    owner = iota
	session         // a program of the session, to the tunnel
	stack           // the client's netstack, to the tunnel
	stackward       // the client's netstack, to a program of the session
	container       // a program in a container, to the tunnel
	aside           // a program in a container, to the client's netstack
)

// key names a flow by its end on the laptop and the other one. It has no padding and no pointers, so that it hashes
// fast. IPv4 addresses are mapped ones.
type key struct {
	local, remote         [16]byte
	localPort, remotePort uint16
	proto                 uint16
}

func keyOf(proto flow.Proto, local, remote netip.AddrPort) key {
	return key{
		local:      local.Addr().As16(),
		remote:     remote.Addr().As16(),
		localPort:  local.Port(),
		remotePort: remote.Port(),
		proto:      uint16(proto),
	}
}

// flow is k as seen from the laptop.
func (k key) flow() flow.Flow {
	end := func(a [16]byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port)
	}
	return flow.Flow{Proto: flow.Proto(k.proto), Src: end(k.local, k.localPort), Dst: end(k.remote, k.remotePort)}
}

// entry is a flow in the table.
type entry struct {
	key        key
	owner      owner
	class      class
	fin        uint8         // which directions have ended: bit 0 the opener's, bit 1 the other
	last       time.Duration // of the latest packet, on the router's clock
	prev, next *entry        // in the list of its class
}

func (e *entry) expired(now time.Duration) bool { return now-e.last >= e.class.timeout() }

// table is the bounded set of open flows.
type table struct {
	max int

	mu                       sync.Mutex
	flows                    map[key]*entry
	lists                    [numClasses]entry // list heads: next is the longest silent, prev the latest
	free                     *entry            // linked by next
	opened, expired, evicted uint64
}

func newTable(limit int) *table {
	t := &table{max: limit, flows: make(map[key]*entry)}
	for i := range t.lists {
		t.lists[i].next, t.lists[i].prev = &t.lists[i], &t.lists[i]
	}
	return t
}

// send notes a packet from the laptop's side on the flow k and opens the flow for who if it is nobody's. It returns the
// flow's owner, and whether another flow had to go.
func (t *table) send(k key, who owner, flags uint8, now time.Duration) (_ owner, evicted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now, 2)
	e := t.liveLocked(k, now)
	if e == nil {
		e, evicted = t.openLocked(k, who)
	} else if e.owner != who && !answers(who, e.owner) {
		return e.owner, false
	}
	t.noteLocked(e, e.owner == who, flags, now)
	return e.owner, evicted
}

// aim makes who the owner of the flow k, which the client's netstack is about to open
// anew, and reports whether it may: not if the flow is open and a program's.
func (t *table) aim(k key, who owner, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now, 2)
	e := t.liveLocked(k, now)
	switch {
	case e == nil:
		e, _ = t.openLocked(k, who)
	case e.owner == stackward || e.owner == aside:
		e.owner = who
	default:
		return false
	}
	t.noteLocked(e, true, flow.SYN, now)
	return true
}

// answers reports whether who may send on a flow that opener has opened.
func answers(who, opener owner) bool {
	return who == session && opener == stackward || who == stackward && opener == aside
}

// receive notes a packet from the tunnel on the flow k and returns its owner, nobody if there is no such flow there.
func (t *table) receive(k key, flags uint8, now time.Duration) owner {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.liveLocked(k, now)
	if e == nil || e.owner == stackward || e.owner == aside {
		return nobody
	}
	t.noteLocked(e, false, flags, now)
	return e.owner
}

// answer notes a packet from the session on the flow k if the client's netstack opened that towards the session, and
// reports whether it did.
func (t *table) answer(k key, flags uint8, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.liveLocked(k, now)
	if e == nil || e.owner != stackward {
		return false
	}
	t.noteLocked(e, false, flags, now)
	return true
}

// find returns the owner of the flow k without noting a packet.
func (t *table) find(k key, now time.Duration) owner {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.liveLocked(k, now); e != nil {
		return e.owner
	}
	return nobody
}

// liveLocked returns the flow k unless it has expired.
func (t *table) liveLocked(k key, now time.Duration) *entry {
	e := t.flows[k]
	if e != nil && e.expired(now) {
		t.removeLocked(e)
		t.expired++
		return nil
	}
	return e
}

// openLocked adds the flow k, not yet in a list.
func (t *table) openLocked(k key, who owner) (e *entry, evicted bool) {
	if len(t.flows) >= t.max {
		evicted = t.evictLocked()
	}
	if e = t.free; e != nil {
		t.free = e.next
	} else {
		e = new(entry)
	}
	*e = entry{key: k, owner: who, class: initialClass(k)}
	t.flows[k] = e
	t.opened++
	return e, evicted
}

func initialClass(k key) class {
	switch flow.Proto(k.proto) {
	case flow.TCP:
		return classOpening
	case flow.UDP:
		return classUDP
	}
	return classEcho
}

// noteLocked advances the state of e by a packet of its opener or of the other side and makes it the latest of its
// class. TCP is tracked just enough to know how long a silent flow deserves its place: sequence numbers are the
// business of the two ends.
func (t *table) noteLocked(e *entry, opener bool, flags uint8, now time.Duration) {
	if flow.Proto(e.key.proto) == flow.TCP {
		e.advance(opener, flags)
	}
	if e.next != nil {
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.last = now
	head := &t.lists[e.class]
	e.prev, e.next = head.prev, head
	e.prev.next, head.prev = e, e
}

func (e *entry) advance(opener bool, flags uint8) {
	switch {
	case flags&flow.RST != 0:
		e.class = classClosing
		return
	case opener && flags&(flow.SYN|flow.ACK) == flow.SYN: // again, or anew on the same ports
		e.class, e.fin = classOpening, 0
		return
	case !opener && flags&flow.ACK != 0 && e.class == classOpening:
		e.class = classOpen
	}
	if flags&flow.FIN != 0 {
		if opener {
			e.fin |= 1
		} else {
			e.fin |= 2
		}
	}
	if e.fin == 3 {
		e.class = classClosing
	}
}

// sweepLocked removes expired flows, at most n of each class so that no packet pays for many.
func (t *table) sweepLocked(now time.Duration, n int) {
	for c := range t.lists {
		head := &t.lists[c]
		for i := 0; i < n && head.next != head && head.next.expired(now); i++ {
			t.removeLocked(head.next)
			t.expired++
		}
	}
}

// evictLocked removes the longest silent flow; open TCP flows go last, since UDP and echo flows come back with their
// next packet. It reports whether there was one.
func (t *table) evictLocked() bool {
	var victim *entry
	for c := range t.lists {
		e := t.lists[c].next
		if e == &t.lists[c] || class(c) == classOpen && victim != nil {
			continue
		}
		if victim == nil || e.last < victim.last {
			victim = e
		}
	}
	if victim == nil {
		return false
	}
	t.removeLocked(victim)
	t.evicted++
	return true
}

// clear removes every flow with the tunnel and returns those of TCP that programs have opened.
func (t *table) clear() []flow.Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []flow.Flow
	for k, e := range t.flows {
		if e.owner == stackward || e.owner == aside {
			continue
		}
		if (e.owner == session || e.owner == container) && flow.Proto(k.proto) == flow.TCP {
			out = append(out, k.flow())
		}
		t.removeLocked(e)
	}
	return out
}

func (t *table) removeLocked(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	delete(t.flows, e.key)
	*e = entry{next: t.free}
	t.free = e
}
