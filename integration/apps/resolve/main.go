// Command resolve prints the addresses of names as Go's resolver finds them: a line per name with its addresses, "none" if
// it does not exist, or what went wrong. Built with cgo and GODEBUG=netdns=cgo it asks the C library.
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
	for _, name := range os.Args[1:] {
		fmt.Println(name, resolve(name))
	}
}

func resolve(name string) string {
	addrs, err := net.DefaultResolver.LookupHost(context.Background(), name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "none"
	case errors.As(err, &dns) && dns.IsTemporary: // its text names the nameserver
		return "temporary-failure"
	case err != nil:
		return strings.ReplaceAll(err.Error(), " ", "_")
	}
	return strings.Join(addrs, " ")
}
