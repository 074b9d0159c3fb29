package dnsproxy

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

const (
	maxNdots   = 15      // RES_MAXNDOTS of glibc and musl
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
	// Options are the words of the options lines as written, ndots included.
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
			if v, ok := strings.CutPrefix(opt, "ndots:"); ok {
				rc.Ndots = ndots(v)
			}
		}
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

// ndots reads the number of an ndots option: capped, and 0 if it does not start with a digit.
func ndots(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > maxNdots {
			break
		}
		n = n*10 + int(c-'0')
	}
	return min(n, maxNdots)
}
