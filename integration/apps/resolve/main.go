// Command resolve prints the addresses of names as Go's resolver finds them: a line per name with its addresses, "none" if
// it does not exist, or what went wrong. Built with cgo and GODEBUG=netdns=cgo it asks the C library. With -srv it prints the
// targets and ports of SRV records instead.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	lookup, names := addresses, os.Args[1:]
	if len(names) > 0 && names[0] == "-srv" {
		lookup, names = services, names[1:]
	}
	for _, name := range names {
		fmt.Println(name, resolve(lookup, name))
	}
}

func addresses(name string) ([]string, error) {
	return net.DefaultResolver.LookupHost(context.Background(), name)
}

func services(name string) ([]string, error) {
	_, records, err := net.DefaultResolver.LookupSRV(context.Background(), "", "", name)
	var out []string
	for _, r := range records {
		out = append(out, fmt.Sprintf("%s:%d", strings.TrimSuffix(r.Target, "."), r.Port))
	}
	return out, err
}

func resolve(lookup func(string) ([]string, error), name string) string {
	found, err := lookup(name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "none"
	case errors.As(err, &dns) && dns.IsTemporary: // its text names the nameserver
		return "temporary-failure"
	case err != nil:
		return strings.ReplaceAll(err.Error(), " ", "_")
	}
	return strings.Join(found, " ")
}
