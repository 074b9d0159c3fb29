package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, tt := range []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"none", nil, 0.5, 0},
		{"one", []float64{7}, 0.99, 7},
		{"lowest", hundred, 0, 1},
		{"median", hundred, 0.5, 50},
		{"p99", hundred, 0.99, 99},
		{"odd", []float64{1, 2, 9}, 0.5, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(tt.values, tt.q); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWindow(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer srv.Close()
	w := window{url: srv.URL, rate: 100, length: 200 * time.Millisecond}
	r := w.run()
	// 50 to warm up and 20 that count.
	if got := requests.Load(); got != 70 || r.Requests != 20 || r.Errors != 0 || r.Lost != 0 {
		t.Errorf("%d requests arrived, want 70; report %+v, want 20 and nothing else", got, r)
	}
	if r.P50 <= 0 || r.P99 < r.P50 {
		t.Errorf("report %+v", r)
	}
	w.delay = 30 * time.Millisecond
	if r := w.run(); r.P50 < 30 {
		t.Errorf("with a delay of 30 ms: report %+v", r)
	}
}

func TestWindowCountsFailures(t *testing.T) {
	var mu sync.Mutex // guards what follows
	requests, reset, bad := map[string]int{}, false, false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests[r.RemoteAddr]++
		switch {
		case !reset && requests[r.RemoteAddr] > 1: // a request on a connection of its own would not be sent again
			reset = true
			panic(http.ErrAbortHandler)
		case !bad && reset:
			bad = true
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer srv.Close()
	r := window{url: srv.URL + "/", rate: 100, length: 100 * time.Millisecond}.run()
	if r.Errors != 1 || r.Lost != 1 || r.Requests != 10 || !strings.Contains(r.Error, "502") {
		t.Errorf("report %+v, want 10 requests, the error 502, and a lost connection", r)
	}
}

// With a size each request is a POST of the stream that its id names.
func TestWindowPosts(t *testing.T) {
	var good, bad atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		id, idErr := strconv.ParseUint(r.FormValue("id"), 10, 64)
		want, _ := io.ReadAll(stream.New(3000, id)) // cannot fail
		if r.Method == http.MethodPost && err == nil && idErr == nil && bytes.Equal(body, want) && r.ContentLength == 3000 {
			good.Add(1)
		} else {
			bad.Add(1)
		}
	}))
	defer srv.Close()
	r := window{url: srv.URL, rate: 100, length: 100 * time.Millisecond, post: true, size: 3000}.run()
	if good.Load() != 60 || bad.Load() != 0 || r.Sent != 60 || r.Requests != 10 {
		t.Errorf("%d right and %d wrong requests; report %+v, want 60 sent, of which 10 count", good.Load(), bad.Load(), r)
	}
}

func TestParseWindow(t *testing.T) {
	w, err := parseWindow([]string{"http://api/", "200", "4s", "75us"})
	if want := (window{url: "http://api/", rate: 200, length: 4 * time.Second, delay: 75 * time.Microsecond}); err != nil || w != want {
		t.Errorf("got %+v, %v, want %+v", w, err, want)
	}
	w, err = parseWindow([]string{"http://api/", "1", "1s", "0s", "3000"})
	if want := (window{url: "http://api/", rate: 1, length: time.Second, post: true, size: 3000}); err != nil || w != want {
		t.Errorf("got %+v, %v, want %+v", w, err, want)
	}
	for _, args := range [][]string{
		{"http://api/"}, {"http://api/", "0", "4s", "0s"}, {"http://api/", "NaN", "4s", "0s"}, {"http://api/", "x", "4s", "0s"},
		{"http://api/", "200", "4", "0s"}, {"http://api/", "200", "4s", ""},
		{"http://api/", "200", "4s", "0s", "-1"}, {"http://api/", "200", "4s", "0s", "x"}, {"http://api/", "200", "4s", "0s", "1", "2"},
	} {
		if _, err := parseWindow(args); err == nil || !strings.HasPrefix(err.Error(), "load: ") {
			t.Errorf("parseWindow(%q): %v", args, err)
		}
	}
}
