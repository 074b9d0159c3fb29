package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Names is what one subject's turn found about DNS.
type Names struct {
	Cached   float64 `json:"cached"`   // µs, median of one name asked again and again
	Uncached float64 `json:"uncached"` // µs, median of names that nobody has asked for before
	RTT      float64 `json:"rtt"`      // µs, median of a datagram of the same size to another pod and back
	Overhead float64 `json:"overhead"` // µs, median of how much longer such a name took than the datagram right before it
	Rate     float64 `json:"rate"`     // cached answers per second, namesInFlight queries under way
	Lost     int     `json:"lost"`     // of these queries, those without an answer
}

const (
	namesService = "ledger.shop.svc.cluster.local"

	cachedQueries   = 2000
	uncachedQueries = 300
	namesInFlight   = 500
	namesSockets    = 10
	namesTime       = 2 * time.Second
	namesPatience   = 30 * time.Second
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
	if n.Cached, err = cached(c, cachedQueries, namesService); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	if err := n.measureUncached(c, namesService+":"+ports[0]); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	if n.Rate, n.Lost, err = flood(server, namesService); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(n)
}

// measureUncached asks c for names that nobody has asked for, and before each sends the same bytes to the echo server of another
// pod: over the same link, one after the other, so that a machine that gets busier or quieter meanwhile does so for both.
func (n *Names) measureUncached(c net.Conn, echo string) error {
	e, err := net.Dial("udp", echo)
	if err != nil {
		return err
	}
	defer e.Close()
	var names, echoes, over []float64
	buf := make([]byte, 4096)
	for i := range uncachedQueries {
		ip := rand.Uint32()
		q := question(uint16(i), fmt.Sprintf("10-%d-%d-%d.shop.pod.cluster.local", byte(ip), byte(ip>>8), byte(ip>>16)))
		size, back, err := answeredIn(e, q, buf)
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		if !bytes.Equal(buf[:size], q) {
			return fmt.Errorf("echo: got %x, want %x", buf[:size], q)
		}
		took, err := ask(c, q, buf)
		if err != nil {
			return err
		}
		names, echoes, over = append(names, took), append(echoes, back), append(over, took-back)
	}
	n.Uncached, n.RTT, n.Overhead = median(names), median(echoes), median(over)
	return nil
}

// answeredIn sends b and waits for a datagram: its size, and the time in µs.
func answeredIn(c net.Conn, b, buf []byte) (size int, took float64, _ error) {
	start := time.Now()
	if err := c.SetDeadline(start.Add(namesPatience)); err != nil {
		return 0, 0, err
	}
	if _, err := c.Write(b); err != nil {
		return 0, 0, err
	}
	size, err := c.Read(buf)
	return size, float64(time.Since(start)) / float64(time.Microsecond), err
}

// ask returns the time of an answer to query q in µs.
func ask(c net.Conn, q, buf []byte) (float64, error) {
	size, took, err := answeredIn(c, q, buf)
	if err != nil {
		return 0, err
	}
	if id, err := answered(buf[:size]); err != nil || id != binary.BigEndian.Uint16(q) {
		return 0, fmt.Errorf("answer to query %d, id %d: %w", binary.BigEndian.Uint16(q), id, err)
	}
	return took, nil
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

// cached asks for name n times, one after the other, and returns the median time of an answer in µs.
func cached(c net.Conn, n int, name string) (float64, error) {
	took := make([]float64, 0, n)
	buf := make([]byte, 4096)
	for i := range n {
		one, err := ask(c, question(uint16(i), name), buf)
		if err != nil {
			return 0, err
		}
		took = append(took, one)
	}
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
