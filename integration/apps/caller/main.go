// Command caller is a sample app of the lab that calls others: for pods that are to
// be seen from outside of a session, since images here have no shell.
//
//	caller             waits for the end of the pod
//	caller get URL     prints the status and the body
//	caller tcp ADDR    says hello to an echo server and prints what comes back
//	caller load URL RATE LENGTH DELAY
//	                   requests at a steady rate, see load.go
//
// The exit code is 1 when nothing answered, whatever it would have been.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

// limit bounds a call.
const limit = 10 * time.Second

func main() {
	if len(os.Args) == 1 {
		os.Exit(observe.Run("caller", func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}))
	}
	if err := call(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func call(out io.Writer, args []string) error {
	if args[0] == "load" {
		return load(out, args[1:])
	}
	if len(args) != 2 {
		return fmt.Errorf("usage: caller [get URL | tcp ADDR | load URL RATE LENGTH DELAY], not %q", args)
	}
	switch args[0] {
	case "get":
		return get(out, args[1])
	case "tcp":
		return echo(out, args[1])
	}
	return fmt.Errorf("unknown call %q", args[0])
}

func get(out io.Writer, url string) error {
	client := http.Client{Timeout: limit}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	fmt.Fprintln(out, res.Status)
	_, err = io.Copy(out, res.Body)
	return err
}

func echo(out io.Writer, addr string) error {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
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
