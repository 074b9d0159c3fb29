package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

const loadUsage = `  load URL RATE LENGTH DELAY [SIZE]
                         requests at a steady rate per second: how long they took; with SIZE
                         each is a POST of so many bytes, of the stream whose seed is its ?id=
`

// requestLimit bounds a request.
const requestLimit = time.Minute

// warmUp is how long requests are sent before the first that counts: connections and
// caches are those of a caller that has called for a while.
const warmUp = 500 * time.Millisecond

// window is a time of requests at a steady rate. They are sent when they are due,
// whether earlier ones are answered or not, so that one slow answer delays no other.
type window struct {
	url    string
	rate   float64 // requests per second
	length time.Duration
	// delay passes, by the clock that is measured with, before each request: what a
	// caller would see of an app that had become slower.
	delay time.Duration
	post  bool
	size  int64 // of a POST's body
}

// report is what a window found, in milliseconds.
type report struct {
	Requests int     `json:"requests"`
	Sent     int     `json:"sent"` // and answered, those of the warm-up too
	Errors   int     `json:"errors"`
	Error    string  `json:"error,omitempty"` // the first
	Lost     int     `json:"lost"`            // connections that the other side reset or closed
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// watched counts itself as lost when the other side ends it. The HTTP client would not
// tell: it sends a request again whose connection broke before the answer.
type watched struct {
	net.Conn
	lost *atomic.Int64
	once sync.Once
}

func (c *watched) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.once.Do(func() { c.lost.Add(1) })
	}
	return n, err
}

// load prints the report of the window that args describe.
func load(out io.Writer, args []string) error {
	w, err := parseWindow(args)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(w.run())
}

func parseWindow(args []string) (window, error) {
	if len(args) != 4 && len(args) != 5 {
		return window{}, fmt.Errorf("load: want URL RATE LENGTH DELAY [SIZE], have %q", args)
	}
	w := window{url: args[0], post: len(args) == 5}
	var err error
	if w.post {
		if w.size, err = strconv.ParseInt(args[4], 10, 64); err == nil && w.size < 0 {
			err = fmt.Errorf("%s is below 0", args[4])
		}
		if err != nil {
			return window{}, fmt.Errorf("load: size: %w", err)
		}
	}
	if w.rate, err = strconv.ParseFloat(args[1], 64); err == nil && !(w.rate > 0) {
		err = fmt.Errorf("%s is not above 0", args[1])
	}
	if err != nil {
		return window{}, fmt.Errorf("load: rate: %w", err)
	}
	if w.length, err = time.ParseDuration(args[2]); err != nil {
		return window{}, fmt.Errorf("load: length: %w", err)
	}
	if w.delay, err = time.ParseDuration(args[3]); err != nil {
		return window{}, fmt.Errorf("load: delay: %w", err)
	}
	return w, nil
}

func (w window) run() report {
	var lost atomic.Int64
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &watched{Conn: conn, lost: &lost}, nil
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: requestLimit}
	var (
		mu   sync.Mutex // guards what follows
		took []float64
		r    report
	)
	request := func(id uint64, counts bool) {
		d, err := w.request(client, id)
		mu.Lock()
		defer mu.Unlock()
		if err != nil { // one of the warm-up is one too many as well
			r.Errors++
			if r.Error == "" {
				r.Error = err.Error()
			}
			return
		}
		r.Sent++
		if counts {
			took = append(took, float64(d)/float64(time.Millisecond))
		}
	}
	var sent sync.WaitGroup
	interval := time.Duration(float64(time.Second) / w.rate)
	begin := time.Now()
	id := uint64(0)
	for due := time.Duration(0); due < warmUp+w.length; due += interval {
		time.Sleep(due - time.Since(begin))
		id++
		this := id
		sent.Go(func() { request(this, due >= warmUp) })
	}
	sent.Wait()
	slices.Sort(took)
	r.Requests, r.P50, r.P99 = len(took), quantile(took, 0.5), quantile(took, 0.99)
	r.Lost = int(lost.Load())
	return r
}

// request sends one request and reads its answer.
func (w window) request(client *http.Client, id uint64) (time.Duration, error) {
	start := time.Now()
	w.wait(start)
	req, err := http.NewRequest(http.MethodGet, w.url, nil)
	if w.post && err == nil {
		// All have one length.
		req, err = http.NewRequest(http.MethodPost, fmt.Sprintf("%s?id=%010d", w.url, id), stream.New(w.size, id))
	}
	if err != nil {
		return 0, err
	}
	if w.size > 0 {
		req.ContentLength = w.size
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", w.url, res.Status)
	}
	return time.Since(start), nil
}

// wait lets the delay pass. A timer comes later than it was asked for, by more than what
// is to be told apart here, so the last of it is spent waiting for the clock.
func (w window) wait(start time.Time) {
	const exactly = time.Millisecond
	if w.delay > 2*exactly {
		time.Sleep(w.delay - exactly)
	}
	for time.Since(start) < w.delay {
	}
}

// quantile returns the smallest of the sorted values that a part q of them does not
// exceed; 0 of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
