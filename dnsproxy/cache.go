package dnsproxy

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxEntries    = 4096
	maxCacheBytes = 4 << 20 // of messages as they were on the wire

	// How long an answer is kept, whatever its TTL says: a session sees changes of the cluster soon enough.
	maxTTL         = time.Hour
	maxNegativeTTL = 5 * time.Minute // RFC 2308 §5 suggests one to three hours at most

	// That there was no answer is kept for a moment, so that programs that try again and again are not each another
	// question to nameservers in trouble (RFC 9520 §3.2): twice as long every time, and never so long that somebody
	// waits for a cluster that is well again.
	minFailureTTL = time.Second
	maxFailureTTL = 4 * time.Second

	// An answer that was used so often is asked for again before it expires, so that nobody waits for it.
	hotHits = 3
)

// cache holds answers, and failures, until they expire, the least lately used giving way. Nothing is served beyond its TTL.
type cache struct {
	mu      sync.Mutex
	entries map[query]*list.Element
	recent  list.List // of *entry, the latest used first
	bytes   int
}

type entry struct {
	key   query
	msg   *dns.Msg // never changed; nil if err is set
	err   error    // why there was no answer
	since time.Time
	ttl   time.Duration
	local bool // from the laptop's resolver
	bytes int
	hits  int
	asked bool // it is being asked for again
}

func newCache() *cache { return &cache{entries: make(map[query]*list.Element)} }

// get returns the answer of key if there is one at now. hot reports whether it should be asked for again, once per entry.
func (c *cache) get(key query, now time.Time) (_ answer, hot bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[key]
	if el == nil {
		return answer{}, false
	}
	e := el.Value.(*entry)
	age := elapsed(e.since, now)
	if age >= e.ttl {
		if !e.failed() { // of a failure it is remembered how long it was kept
			c.removeLocked(el)
		}
		return answer{}, false
	}
	c.recent.MoveToFront(el)
	if e.failed() {
		return answer{msg: e.msg, err: e.err, age: age, from: FromCache}, false
	}
	e.hits++
	if left := e.ttl - age; !e.asked && e.hits >= hotHits && left <= max(e.ttl/10, min(e.ttl/2, time.Second)) {
		e.asked, hot = true, true
	}
	return answer{msg: e.msg, age: age, from: FromCache}, hot
}

// elapsed returns the time from since to now by the clock that went further: a laptop that slept has stopped one of them.
func elapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// failed reports whether the entry says that there was no answer.
func (e *entry) failed() bool { return e.err != nil || isFailure(e.msg.Rcode) }

// isFailure reports whether an answer of that kind says nothing about the name.
func isFailure(rcode int) bool { return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError }

// put keeps msg, the answer of key, as long as its TTLs allow.
func (c *cache) put(key query, msg *dns.Msg, since time.Time, local bool) {
	ttl := timeToLive(msg)
	if ttl <= 0 {
		return
	}
	c.add(&entry{key: key, msg: msg, since: since, ttl: ttl, local: local, bytes: msg.Len()})
}

// putFailure keeps, for a moment, that there was no answer of key: msg says so, or err.
func (c *cache) putFailure(key query, msg *dns.Msg, err error, now time.Time, local bool) {
	e := &entry{key: key, msg: msg, err: err, since: now, ttl: minFailureTTL, local: local}
	if msg != nil {
		e.bytes = msg.Len()
	}
	c.mu.Lock()
	if el := c.entries[key]; el != nil {
		if last := el.Value.(*entry); last.failed() && elapsed(last.since, now) < last.ttl+maxFailureTTL {
			e.ttl = min(2*last.ttl, maxFailureTTL)
		}
	}
	c.mu.Unlock()
	c.add(e)
}

// add puts e in the place of what is there for its key.
func (c *cache) add(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[e.key]; el != nil {
		c.removeLocked(el)
	}
	c.entries[e.key] = c.recent.PushFront(e)
	c.bytes += e.bytes
	for len(c.entries) > maxEntries || c.bytes > maxCacheBytes {
		c.removeLocked(c.recent.Back())
	}
}

// forgetLocal drops what the laptop's resolver answered.
func (c *cache) forgetLocal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.recent.Front(); el != nil; {
		next := el.Next()
		if el.Value.(*entry).local {
			c.removeLocked(el)
		}
		el = next
	}
}

func (c *cache) removeLocked(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.bytes
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// timeToLive returns how long msg may be kept as a whole, 0 if not at all: as long as each of its records and, if it says
// that something is not there, as its SOA record allows (RFC 2308 §5). Without one nobody said how long it is not.
func timeToLive(msg *dns.Msg) time.Duration {
	if msg.Truncated || isFailure(msg.Rcode) {
		return 0
	}
	limit, soa := maxTTL, false
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue // its TTL is not one
			}
			limit = min(limit, seconds(rr.Header().Ttl))
			if s, ok := rr.(*dns.SOA); ok {
				soa, limit = true, min(limit, seconds(s.Minttl))
			}
		}
	}
	if !negative(msg) {
		return limit
	}
	if !soa {
		return 0
	}
	return min(limit, maxNegativeTTL)
}

// negative reports whether msg says that a name, or the end of a chain of aliases, does not exist or has no such record.
func negative(msg *dns.Msg) bool {
	if msg.Rcode == dns.RcodeNameError {
		return true
	}
	for _, rr := range msg.Answer {
		if t := rr.Header().Rrtype; t == msg.Question[0].Qtype || t != dns.TypeCNAME && t != dns.TypeDNAME && t != dns.TypeRRSIG {
			return false
		}
	}
	return true
}

// seconds returns a TTL as a duration. One with its highest bit set is zero (RFC 2181 §8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
