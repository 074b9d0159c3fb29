//go:build lab

package integration

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// probeVar names the probe that the test binary runs instead of the tests.
const probeVar = "BORROWNET_TEST_PROBE"

// probes are little programs for `borrownet run`; each prints its findings.
var probes = map[string]func(args []string) error{
	"get":       probeGet,
	"dial":      probeDial,
	"halfclose": probeHalfClose,
	"upload":    probeUpload,
	"download":  probeDownload,
	"many":      probeMany,
	"udp":       probeUDP,
	"stall":     probeStall,
}

func runProbe(name string, args []string) int {
	probe, ok := probes[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such probe:", name)
		return 2
	}
	if err := probe(args); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	return 0
}

// probe runs the named probe under `borrownet run` and returns its output.
func probe(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	argv := append([]string{"borrownet", "run", "--", self(t)}, args...)
	r := command{argv: argv, env: []string{probeVar + "=" + name}, timeout: limit}.run(t)
	if r.code != 0 {
		t.Fatalf("probe %s %q: %v", name, args, r)
	}
	return strings.TrimSpace(r.stdout)
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func probeGet(args []string) error {
	resp, err := http.Get(args[0])
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// probeDial connects to each address without any Go timeout of its own and
// prints the errno of connect(2) and how long it took.
func probeDial(args []string) error {
	for _, addr := range args {
		limit := 60 * time.Second
		if a, d, ok := strings.Cut(addr, "@"); ok {
			addr = a
			var err error
			if limit, err = time.ParseDuration(d); err != nil {
				return err
			}
		}
		start := time.Now()
		conn, err := net.DialTimeout("tcp", addr, limit)
		if err == nil {
			conn.Close()
		}
		fmt.Printf("%s %s %v\n", addr, errnoName(err), time.Since(start).Round(time.Millisecond))
	}
	return nil
}

func errnoName(err error) string {
	var nerr net.Error
	for _, e := range []struct {
		errno syscall.Errno
		name  string
	}{
		{syscall.ECONNREFUSED, "ECONNREFUSED"}, {syscall.EHOSTUNREACH, "EHOSTUNREACH"}, {syscall.ENETUNREACH, "ENETUNREACH"},
		{syscall.ETIMEDOUT, "ETIMEDOUT"}, {syscall.ECONNRESET, "ECONNRESET"}, {syscall.EACCES, "EACCES"},
	} {
		if errors.Is(err, e.errno) {
			return e.name
		}
	}
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &nerr) && nerr.Timeout():
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "_")
}

// probeHalfClose says all it has to say, closes its half, and only then gets
// the answer.
func probeHalfClose(args []string) error {
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	const size = 1 << 20
	if _, err := io.Copy(conn, stream.New(size, 3)); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, conn)
	if err != nil {
		return err
	}
	if want := stream.Sum(size, 3); n != size || [32]byte(h.Sum(nil)) != want {
		return fmt.Errorf("got %d bytes, want the %d that were sent", n, size)
	}
	fmt.Println("ok")
	return nil
}

func sizeAndSeed(args []string) (int64, uint64, error) {
	n, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return 0, 0, err
	}
	seed, err := strconv.ParseUint(args[1], 10, 64)
	return n, seed, err
}

// probeUpload sends n bytes to the sink at args[0] and prints what it saw.
func probeUpload(args []string) error {
	n, seed, err := sizeAndSeed(args[1:])
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.Copy(conn, stream.New(n, seed)); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Print(line)
	return nil
}

// probeDownload reads n bytes from the source at args[0] and prints their
// number and digest.
func probeDownload(args []string) error {
	n, seed, err := sizeAndSeed(args[1:])
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%d %d\n", n, seed)
	h := sha256.New()
	got, err := io.Copy(h, conn)
	if err != nil {
		return err
	}
	fmt.Println(got, hex.EncodeToString(h.Sum(nil)))
	return nil
}

// probeMany opens args[1] connections to the echo server at args[0], keeps all
// of them open until each has had its own answer, and prints how many had.
func probeMany(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var open, done sync.WaitGroup
	open.Add(n)
	good := make(chan bool, n)
	for i := range n {
		done.Go(func() { good <- echoOnce(args[0], fmt.Sprintf("flow %d", i), &open) })
	}
	done.Wait()
	close(good)
	count := 0
	for ok := range good {
		if ok {
			count++
		}
	}
	fmt.Println(count)
	return nil
}

// echoOnce reports whether addr echoed text on a connection that stayed open
// until everyone counted in open had his.
func echoOnce(addr, text string, open *sync.WaitGroup) bool {
	conn, err := net.Dial("tcp", addr)
	open.Done()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	defer conn.Close()
	open.Wait()
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprint(conn, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	return string(got) == text
}

// probeUDP asks every server in args from one unconnected socket and prints
// who answered what.
func probeUDP(args []string) error {
	pc, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		return err
	}
	defer pc.Close()
	pc.SetDeadline(time.Now().Add(time.Minute))
	for i, a := range args {
		dst, err := net.ResolveUDPAddr("udp4", a)
		if err != nil {
			return err
		}
		if _, err := pc.WriteTo([]byte(fmt.Sprint("hello ", i)), dst); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("answer of %s: %w", a, err)
		}
		fmt.Printf("%s %s %s\n", a, from, strings.TrimSpace(string(buf[:n])))
	}
	return nil
}
