package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// maxAnswer bounds what Call reads.
const maxAnswer = 1 << 20

// Call calls target as any program does, with the sockets and the resolver of
// this process, and writes the answer to out. Target is http://HOST[:PORT]/PATH,
// tcp://HOST:PORT or udp://HOST:PORT, which are sent text, or dns://NAME. preload is
// hook.EnvVar of the environment: the library cannot be in this program, which asks
// the session itself then.
func Call(ctx context.Context, target, text, preload string, out io.Writer) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return &fault.Error{Code: fault.Usage, Reason: fmt.Sprintf("%q is no URL to call", target), Hint: "borrownet demo call http://orders"}
	}
	call, ok := map[string]func(context.Context, *url.URL, string, io.Writer) error{
		"http": callHTTP, "tcp": callTCP, "udp": callUDP, "dns": callDNS,
	}[u.Scheme]
	if !ok {
		return &fault.Error{Code: fault.Usage, Reason: fmt.Sprintf("%q is neither http, tcp, udp nor dns", u.Scheme), Hint: "borrownet demo call http://orders"}
	}
	if preload != "" {
		if err := useSession(preload); err != nil {
			return &fault.Error{Code: fault.Hook, Op: "use session", Reason: err.Error(), Err: err}
		}
	}
	start := time.Now()
	if err := call(ctx, u, text, out); err != nil {
		return &fault.Error{Code: fault.General, Op: "call", Object: target, Reason: reason(err, time.Since(start)), Err: err}
	}
	return nil
}

// reason says in a few words why a call failed.
func reason(err error, took time.Duration) string {
	var (
		dns   *net.DNSError
		errno syscall.Errno
		late  interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns) && !dns.IsTimeout:
		return "look up " + dns.Name + ": " + dns.Err
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return fmt.Sprintf("no answer in %v", took.Round(100*time.Millisecond))
	}
	return err.Error()
}

func callHTTP(ctx context.Context, u *url.URL, _ string, out io.Writer) error {
	// No proxy: the demo shows where connections go.
	tr := &http.Transport{DisableCompression: true, DialContext: dialContext}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "borrownet-demo")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answer %s", resp.Status)
	}
	_, err = io.Copy(out, io.LimitReader(resp.Body, maxAnswer))
	return err
}

// dial connects, with ctx's end as deadline of the conn.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := dialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		err = c.SetDeadline(end)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func callTCP(ctx context.Context, u *url.URL, text string, out io.Writer) error {
	c, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, text); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(c, maxAnswer))
	return err
}

func callUDP(ctx context.Context, u *url.URL, text string, out io.Writer) error {
	c, err := dial(ctx, "udp", u.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, text); err != nil {
		return err
	}
	buf := make([]byte, maxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	_, err = out.Write(buf[:n])
	return err
}

func callDNS(ctx context.Context, u *url.URL, _ string, out io.Writer) error {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Host)
	if err != nil {
		return err
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range addrs {
		fmt.Fprintln(out, a)
	}
	return nil
}
