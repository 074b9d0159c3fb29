package dnsproxy

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

const (
	maxNdots    = 15               // RES_MAXNDOTS of glibc and musl
	maxTimeout  = 30 * time.Second // RES_MAXRETRANS of glibc
	maxAttempts = 5                // RES_MAXRETRY of glibc

	maxServers = 3       // MAXNS of resolv.conf(5)
	maxSearch  = 32      // what Kubernetes admits; glibc has no limit since 2.26
	maxConf    = 1 << 20 // bytes of a resolv.conf that are read
)

// ResolvConf is the content of a resolv.conf(5) file.
type ResolvConf struct {
	// Nameservers in order, all of them: resolvers use the first three.
	Nameservers []netip.Addr
	// Search list in order, without dots at the end; "." stands for the root.
	Search []string
	// Ndots is the number of dots from which on a name is first tried as it is: 0 to 15.
	Ndots int
	// Timeout is how long one nameserver is waited for, at most 30 s. Zero means the default of 5 s.
	Timeout time.Duration
	// Attempts is how often all nameservers are tried, at most 5. Zero means the default of 2.
	Attempts int
	// Rotate is whether queries begin with another nameserver each time.
	Rotate bool
	// UseVC is whether queries go over TCP from the first.
	UseVC bool
	// Options are the words of the options lines as written, those above included.
	Options []string
}

// ParseResolvConf reads a resolv.conf(5) file. Lines that it does not know or cannot read are ignored, as resolvers
// do; the error is that of r. Without a nameserver line it is 127.0.0.1; the last of the search and domain lines
// holds. The default search list, the domain of the host's name, is not guessed.
func ParseResolvConf(r io.Reader) (ResolvConf, error) {
	rc := ResolvConf{Ndots: 1}
	sc := bufio.NewScanner(io.LimitReader(r, maxConf))
	sc.Buffer(nil, maxConf+1)
	for sc.Scan() {
		rc.line(sc.Text())
	}
	if err := sc.Err(); err != nil {
		return ResolvConf{}, fmt.Errorf("read resolv.conf: %w", err)
	}
	if len(rc.Nameservers) == 0 {
		rc.Nameservers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return rc, nil
}

func (rc *ResolvConf) line(line string) {
	// "The keyword … must start the line" (resolv.conf(5)): no trimming on the left.
	keyword, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	args := strings.Fields(rest)
	if len(args) == 0 {
		return
	}
	switch keyword {
	case "nameserver":
		word := args[0]
		if i := strings.IndexAny(word, ";#"); i >= 0 {
			word = word[:i]
		}
		if a, err := netip.ParseAddr(word); err == nil {
			rc.Nameservers = append(rc.Nameservers, a.Unmap())
		}
	case "domain":
		rc.Search = suffixes(args[:1])
	case "search":
		rc.Search = suffixes(args)
	case "options":
		for _, opt := range args {
			rc.Options = append(rc.Options, opt)
			rc.option(opt)
		}
	}
}

// option takes one word of an options line. What it does not know it ignores: trust-ad, inet6 and the like are between
// a program and its C library; EDNS is spoken anyway.
func (rc *ResolvConf) option(word string) {
	name, value, _ := strings.Cut(word, ":")
	switch name {
	case "ndots":
		rc.Ndots = number(value, maxNdots)
	case "timeout":
		rc.Timeout = time.Duration(number(value, int(maxTimeout/time.Second))) * time.Second
	case "attempts":
		rc.Attempts = number(value, maxAttempts)
	case "rotate":
		rc.Rotate = true
	case "use-vc", "usevc":
		rc.UseVC = true
	}
}

// suffixes returns words without the dots at their end; the root stays ".".
func suffixes(words []string) []string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		if w = strings.TrimRight(w, "."); w == "" {
			w = "."
		}
		out = append(out, w)
	}
	return out
}

// number reads the number of an option as atoi(3) does, capped: 0 if it does not start with a digit.
func number(s string, limit int) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > limit {
			break
		}
		n = n*10 + int(c-'0')
	}
	return min(n, limit)
}
