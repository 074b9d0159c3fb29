package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// pumping is what pump prints when data flows.
const pumping = "moving\n"

// pump moves data to the sink at args[0] and from the source at args[1], args[2] bytes
// per second in all, until its input ends. Then it prints how much it was, in MB/s.
func pump(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("pump: want 3 arguments, have %d", len(args))
	}
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("pump: rate: %w", err)
	}
	up, err := dial(args[0])
	if err != nil {
		return fmt.Errorf("pump: %w", err)
	}
	defer up.Close()
	down, err := dial(args[1])
	if err != nil {
		return fmt.Errorf("pump: %w", err)
	}
	defer down.Close()
	for _, conn := range []net.Conn{up, down} {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(down, "%d 1\n", int64(1)<<40); err != nil {
		return err
	}
	var moved atomic.Int64
	broke := make(chan error, 2)
	begin := time.Now()
	// Both end with their connections.
	go func() { broke <- paced(up.Write, rate/2, begin, &moved) }()
	go func() {
		broke <- paced(func(b []byte) (int, error) { return io.ReadFull(down, b) }, rate/2, begin, &moved)
	}()
	fmt.Print(pumping)
	over := make(chan struct{})
	go func() { // ends with the input
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	select {
	case err := <-broke:
		return fmt.Errorf("pump: %w", err)
	case <-over:
	}
	_, err = fmt.Println(float64(moved.Load()) / 1e6 / time.Since(begin).Seconds())
	return err
}

// paced moves rate bytes per second since begin, in pieces, until it cannot.
func paced(move func([]byte) (int, error), rate int, begin time.Time, moved *atomic.Int64) error {
	const pieces = 100 // per second
	piece := make([]byte, rate/pieces)
	for n := 1; ; n++ {
		done, err := move(piece)
		moved.Add(int64(done))
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(n)*time.Second/pieces - time.Since(begin))
	}
}
