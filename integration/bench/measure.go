package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Sample is what one subject's turn found.
type Sample struct {
	RTT       float64 `json:"rtt"`       // ms, median of one connection's 64 B round trips
	Connect   float64 `json:"connect"`   // ms, median of connect + 1 B + answer
	Up        float64 `json:"up"`        // MB/s, one flow
	Down      float64 `json:"down"`      // MB/s, one flow
	UpMany    float64 `json:"upMany"`    // MB/s, sum of 16 flows
	DownMany  float64 `json:"downMany"`  // MB/s, sum of 16 flows
	Loaded    []Load  `json:"loaded"`    // of an upload, of a download
	Socket    float64 `json:"socket"`    // µs, median of socket(2)
	Listen    float64 `json:"listen"`    // µs, median of listen(2) on 127.0.0.1
	Untrapped float64 `json:"untrapped"` // ns, mean of a system call that nobody traps
}

// Load is what one bulk flow does to the round trips of another connection.
type Load struct {
	P50  float64 `json:"p50"`  // ms
	P99  float64 `json:"p99"`  // ms
	Bulk float64 `json:"bulk"` // MB/s of the bulk flow
}

const (
	many        = 16 // flows
	roundTrips  = 500
	connections = 50
	sockets     = 1000
	listeners   = 200
	getppids    = 200_000
)

// measure runs one subject: the echo, sink and source servers at args[0:3],
// bulk transfers of args[3] seconds. It prints a Sample.
func measure(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("measure: want 4 arguments, have %d", len(args))
	}
	seconds, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return fmt.Errorf("measure: seconds: %w", err)
	}
	length := time.Duration(seconds * float64(time.Second))
	for i := range args[:3] {
		// Names are resolved once: what a connection costs is the link's matter.
		if args[i], err = resolve(args[i]); err != nil {
			return fmt.Errorf("measure: %w", err)
		}
	}
	var s Sample
	for _, m := range []struct {
		what  string
		value *float64
		get   func() (float64, error)
	}{
		{"round trip", &s.RTT, func() (float64, error) { return roundTrip(args[0]) }},
		{"connect", &s.Connect, func() (float64, error) { return connect(args[0]) }},
		{"upload", &s.Up, func() (float64, error) { return upload(args[1], length) }},
		{"download", &s.Down, func() (float64, error) { return download(args[2], length) }},
		{"uploads", &s.UpMany, func() (float64, error) { return several(upload, args[1], length) }},
		{"downloads", &s.DownMany, func() (float64, error) { return several(download, args[2], length) }},
		{"socket", &s.Socket, socket},
		{"listen", &s.Listen, listen},
		{"system call", &s.Untrapped, untrapped},
	} {
		if *m.value, err = m.get(); err != nil {
			return fmt.Errorf("measure %s: %w", m.what, err)
		}
	}
	for _, bulk := range []struct {
		transfer func(string, time.Duration) (float64, error)
		addr     string
	}{{upload, args[1]}, {download, args[2]}} {
		load, err := loaded(args[0], length, func() (float64, error) { return bulk.transfer(bulk.addr, length) })
		if err != nil {
			return fmt.Errorf("measure round trips under load: %w", err)
		}
		s.Loaded = append(s.Loaded, load)
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// several returns the sum of many transfers at once.
func several(transfer func(string, time.Duration) (float64, error), addr string, length time.Duration) (float64, error) {
	type result struct {
		rate float64
		err  error
	}
	results := make(chan result)
	for range many {
		go func() {
			rate, err := transfer(addr, length)
			results <- result{rate, err}
		}()
	}
	var sum float64
	var errs []error
	for range many {
		r := <-results
		sum += r.rate
		errs = append(errs, r.err)
	}
	return sum, errors.Join(errs...)
}

// loaded measures round trips of one connection while bulk runs, but for its
// first fifth, in which the flow gets up to speed.
func loaded(echo string, length time.Duration, bulk func() (float64, error)) (Load, error) {
	conn, err := dial(echo)
	if err != nil {
		return Load{}, err
	}
	defer conn.Close()
	type result struct {
		rate float64
		err  error
	}
	done := make(chan result, 1)
	var start time.Time
	begin := func() {
		start = time.Now()
		go func() {
			rate, err := bulk()
			done <- result{rate, err}
		}()
	}
	begin()
	var took []float64
	for buf := make([]byte, 64); ; {
		select {
		case r := <-done:
			if r.err != nil {
				return Load{}, r.err
			}
			if len(took) == 0 { // the one that was under way took as long as the flow
				begin()
				continue
			}
			slices.Sort(took)
			return Load{P50: median(took), P99: took[len(took)*99/100], Bulk: r.rate}, nil
		default:
		}
		at := time.Now()
		if err := exchange(conn, buf); err != nil {
			return Load{}, err
		}
		if at.Sub(start) > length/5 {
			took = append(took, milliseconds(time.Since(at)))
		}
	}
}

func resolve(addr string) (string, error) {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return "", err
	}
	return a.String(), nil
}

func dial(addr string) (*net.TCPConn, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), conn.SetDeadline(time.Now().Add(time.Minute))
}

func exchange(conn net.Conn, buf []byte) error {
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func roundTrip(echo string) (float64, error) {
	conn, err := dial(echo)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var took []float64
	for range roundTrips {
		start := time.Now()
		if err := exchange(conn, make([]byte, 64)); err != nil {
			return 0, err
		}
		took = append(took, milliseconds(time.Since(start)))
	}
	return median(took), nil
}

func connect(echo string) (float64, error) {
	var took []float64
	for range connections {
		start := time.Now()
		conn, err := dial(echo)
		if err != nil {
			return 0, err
		}
		err = exchange(conn, []byte{1})
		took = append(took, milliseconds(time.Since(start)))
		conn.Close()
		if err != nil {
			return 0, err
		}
	}
	return median(took), nil
}

// upload counts what the connection has taken.
func upload(sink string, length time.Duration) (float64, error) {
	conn, err := dial(sink)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 256<<10)
	total := 0
	start := time.Now()
	for time.Since(start) < length {
		n, err := conn.Write(buf)
		if err != nil {
			return 0, err
		}
		total += n
	}
	// The end is not awaited, since a raw port-forward does not carry a
	// half-close: what is still on its way is bounded and the same for all.
	return float64(total) / 1e6 / time.Since(start).Seconds(), nil
}

func download(source string, length time.Duration) (float64, error) {
	conn, err := dial(source)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%d 1\n", int64(1)<<40); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	total := 0
	start := time.Now()
	for time.Since(start) < length {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return float64(total) / 1e6 / time.Since(start).Seconds(), nil
}

func socket() (float64, error) {
	took := make([]float64, 0, sockets)
	for range sockets {
		start := time.Now()
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		took = append(took, float64(time.Since(start))/float64(time.Microsecond))
		if err != nil {
			return 0, os.NewSyscallError("socket", err)
		}
		syscall.Close(fd)
	}
	slices.Sort(took)
	return median(took), nil
}

// listen is what a program waits for its listener on the laptop's loopback, which
// borrownet makes anew there.
func listen() (float64, error) {
	took := make([]float64, 0, listeners)
	for range listeners {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, os.NewSyscallError("socket", err)
		}
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return 0, os.NewSyscallError("bind", err)
		}
		start := time.Now()
		err = syscall.Listen(fd, 16)
		took = append(took, float64(time.Since(start))/float64(time.Microsecond))
		syscall.Close(fd)
		if err != nil {
			return 0, os.NewSyscallError("listen", err)
		}
	}
	slices.Sort(took)
	return median(took), nil
}

// untrapped returns the fastest of several means, which other programs on the
// machine disturb least.
func untrapped() (float64, error) {
	best := float64(time.Second)
	for range 5 {
		start := time.Now()
		for range getppids {
			syscall.Getppid()
		}
		best = min(best, float64(time.Since(start))/getppids)
	}
	return best, nil
}
