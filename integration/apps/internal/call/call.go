// Package call is the client side of the sample apps: calls that are made the same way
// from inside a pod and from a laptop, so that the answers can be compared.
package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/borrownet/borrownet/integration/apps/internal/rpc"
)

// Usage says which calls there are.
const Usage = `  get URL [NAME:VALUE…]  HTTP/1.1: the status and the body; headers
  h2c URL [NAME:VALUE…]  the same with HTTP/2 from the first byte
  ws URL                 WebSocket: has messages echoed; what the server saw
  grpc ADDR              gRPC: status, streams, unary; what the server saw
  tcp ADDR               says hello to an echo server and prints what comes back
  lookup NAME            the addresses
`

// limit bounds a call.
const limit = time.Minute

// A caller calls whom, with whatever more its kind of call takes.
type caller func(ctx context.Context, out io.Writer, whom string, more ...string) error

func calls() map[string]caller {
	return map[string]caller{"get": getHTTP1, "h2c": getHTTP2, "ws": converse, "grpc": callRPC, "tcp": echo, "lookup": lookup}
}

func callRPC(ctx context.Context, out io.Writer, addr string, _ ...string) error {
	return rpc.Call(ctx, addr, out)
}

// Run makes the call that the arguments say. Whatever answered, an error only says
// that nothing did.
func Run(out io.Writer, args []string) error {
	names := strings.Join(slices.Sorted(maps.Keys(calls())), ", ")
	if len(args) < 2 {
		return fmt.Errorf("want a call (%s) and whom, not %q", names, args)
	}
	call, ok := calls()[args[0]]
	if !ok {
		return fmt.Errorf("unknown call %q: there are %s", args[0], names)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return call(ctx, out, args[1], args[2:]...)
}

// Main is Run as an app: it prints, and returns the exit code.
func Main(app string, args []string) int {
	if err := Run(os.Stdout, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", app, err)
		return 1
	}
	return 0
}

func echo(ctx context.Context, out io.Writer, addr string, _ ...string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	const hello = "hello"
	if _, err := io.WriteString(conn, hello); err != nil {
		return err
	}
	answer := make([]byte, len(hello))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", answer)
	return err
}

func lookup(ctx context.Context, out io.Writer, name string, _ ...string) error {
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		// Without the server's address: on a laptop it is another one.
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return fmt.Errorf("lookup %s: %s", name, dns.Err)
		}
		return err
	}
	slices.Sort(addrs)
	_, err = fmt.Fprintln(out, strings.Join(addrs, " "))
	return err
}
