package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Names is what one subject's turn found about DNS.
type Names struct {
	Cached   float64 `json:"cached"`   // µs, median of one name asked again and again
	Uncached float64 `json:"uncached"` // µs, median of names that nobody has asked for before
	Rate     float64 `json:"rate"`     // cached answers per second, namesInFlight queries under way
	Lost     int     `json:"lost"`     // of these queries, those without an answer
	RTT      float64 `json:"rtt"`      // µs, median of a datagram to another pod and back
}

const (
	namesService = "ledger.shop.svc.cluster.local"

	cachedQueries   = 2000
	uncachedQueries = 300
	namesInFlight   = 500
	namesSockets    = 10
	namesTime       = 2 * time.Second
	namesPatience   = 5 * time.Second
)

// measureNames measures the nameserver at args[0], or the first one of resolv.conf if that is "-", and prints Names. Names
// that nobody has asked for are those of pods by their addresses, which CoreDNS makes up as asked.
func measureNames(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("names: want 1 argument, have %d", len(args))
	}
	server := args[0]
	if server == "-" {
		var err error
		if server, err = firstNameserver(); err != nil {
			return fmt.Errorf("names: %w", err)
		}
	}
	c, err := net.Dial("udp", net.JoinHostPort(server, "53"))
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	defer c.Close()
	var n Names
	if n.RTT, err = datagramRoundTrip(namesService + ":" + ports[0]); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	for _, m := range []struct {
		value *float64
		count int
		name  func() string
	}{
		{&n.Cached, cachedQueries, func() string { return namesService }},
		{&n.Uncached, uncachedQueries, func() string {
			ip := rand.Uint32()
			return fmt.Sprintf("10-%d-%d-%d.shop.pod.cluster.local", byte(ip), byte(ip>>8), byte(ip>>16))
		}},
	} {
		if *m.value, err = queries(c, m.count, m.name); err != nil {
			return fmt.Errorf("names: %w", err)
		}
	}
	if n.Rate, n.Lost, err = flood(server, namesService); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(n)
}

// datagramRoundTrip returns the median time that a datagram takes to the echo server and back, in µs.
func datagramRoundTrip(echo string) (float64, error) {
	c, err := net.Dial("udp", echo)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []float64
	buf := make([]byte, 64)
	for range uncachedQueries {
		start := time.Now()
		if err := c.SetDeadline(start.Add(namesPatience)); err != nil {
			return 0, err
		}
		if _, err := c.Write(buf); err != nil {
			return 0, err
		}
		if _, err := c.Read(buf); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(start))/float64(time.Microsecond))
	}
	return median(took), nil
}

func firstNameserver() (string, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			return f[1], nil
		}
	}
	return "", errors.New("resolv.conf names no nameserver")
}

// question returns a query for the addresses of name.
func question(id uint16, name string) []byte {
	q := binary.BigEndian.AppendUint16(nil, id)
	q = append(q, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired; one question
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// answered returns the ID of a reply that has an answer.
func answered(reply []byte) (uint16, error) {
	if len(reply) < 12 || reply[2]&0x80 == 0 {
		return 0, errors.New("not a reply")
	}
	if rcode, answers := reply[3]&15, binary.BigEndian.Uint16(reply[6:]); rcode != 0 || answers == 0 {
		return 0, fmt.Errorf("rcode %d, %d answers", rcode, answers)
	}
	return binary.BigEndian.Uint16(reply), nil
}

// queries asks for n names one after the other and returns the median time of an answer in µs.
func queries(c net.Conn, n int, name func() string) (float64, error) {
	took := make([]float64, 0, n)
	buf := make([]byte, 4096)
	for i := range n {
		q := question(uint16(i), name())
		start := time.Now()
		if err := c.SetDeadline(start.Add(namesPatience)); err != nil {
			return 0, err
		}
		if _, err := c.Write(q); err != nil {
			return 0, err
		}
		size, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		if id, err := answered(buf[:size]); err != nil || id != uint16(i) {
			return 0, fmt.Errorf("answer to query %d, id %d: %w", i, id, err)
		}
		took = append(took, float64(time.Since(start))/float64(time.Microsecond))
	}
	slices.Sort(took)
	return median(took), nil
}

// flood keeps namesInFlight queries under way for namesTime and returns the answers per second, and how many are missing.
func flood(server, name string) (rate float64, lost int, err error) {
	var sent, got atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, namesSockets)
	start := time.Now()
	for range namesSockets {
		c, err := net.Dial("udp", net.JoinHostPort(server, "53"))
		if err != nil {
			return 0, 0, err
		}
		wg.Go(func() {
			defer c.Close()
			if err := floodSocket(c, name, start.Add(namesTime), &sent, &got); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	length := min(time.Since(start), namesTime).Seconds()
	select {
	case err := <-failed:
		return 0, 0, err
	default:
		return float64(got.Load()) / length, int(sent.Load() - got.Load()), nil
	}
}

// floodSocket sends a query for each answer until end, then waits for those that are under way.
func floodSocket(c net.Conn, name string, end time.Time, sent, got *atomic.Int64) error {
	buf := make([]byte, 4096)
	next, left := uint16(0), 0
	send := func() error {
		next++
		left++
		sent.Add(1)
		_, err := c.Write(question(next, name))
		return err
	}
	for range namesInFlight / namesSockets {
		if err := send(); err != nil {
			return err
		}
	}
	for left > 0 {
		if err := c.SetReadDeadline(time.Now().Add(namesPatience)); err != nil {
			return err
		}
		size, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // they are lost
		}
		if err != nil {
			return err
		}
		if _, err := answered(buf[:size]); err != nil {
			return err
		}
		left--
		got.Add(1)
		if time.Now().Before(end) {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return nil
}
