package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/recording"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/netstack/flow"
)

// recorded is a file that what a session records is written to.
type recorded struct {
	path   string
	cancel context.CancelFunc
	body   io.Closer
	file   *os.File
	w      *recording.Writer
	ended  chan error
	fins   atomic.Int64 // clients that have ended their side
}

// record begins to write what s records, until close.
func record(t *testing.T, s *session.Session) *recorded {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	body, err := s.Record(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorded{path: filepath.Join(t.TempDir(), "f.pcapng"), cancel: cancel, body: body, ended: make(chan error, 1)}
	if r.file, err = os.Create(r.path); err != nil {
		t.Fatal(err)
	}
	in := wire.NewCaptureReader(body)
	first, err := in.Next()
	if err != nil || first.Stats == nil {
		t.Fatalf("first record %+v, %v", first, err)
	}
	if r.w, err = recording.NewWriter(r.file, *first.Stats, "borrownet test"); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.write(in) }() // ends with close
	return r
}

func (r *recorded) write(in *wire.CaptureReader) error {
	for {
		rec, err := in.Next()
		switch {
		case err != nil:
			return r.w.Close()
		case rec.Stats != nil:
			r.w.Stats(*rec.Stats)
		case rec.Data != nil:
			if err := r.w.Packet(rec); err != nil {
				return err
			}
			if seg, err := flow.ParseSegment(rec.Data); err == nil && seg.Flags&flow.FIN != 0 && seg.Flow.Src.Addr() == apiAddr {
				r.fins.Add(1)
			}
		}
	}
}

// close ends the file. It returns how many packets are in it.
func (r *recorded) close(t *testing.T) int {
	t.Helper()
	r.cancel()
	r.body.Close()
	if err := errors.Join(<-r.ended, r.file.Close()); err != nil {
		t.Fatal(err)
	}
	return int(r.w.Count())
}

// tshark reads a recording and returns the fields of each packet.
func tshark(t *testing.T, path string, fields ...string) (packets []map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args := []string{"-n", "-r", path, "-d", fmt.Sprintf("tcp.port==%d,http2", livePort), "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(ctx, "tshark", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	for line := range strings.Lines(string(out)) {
		packet := map[string]string{}
		for i, value := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
			packet[fields[i]] = value
		}
		packets = append(packets, packet)
	}
	return packets
}

// TestTsharkReadsRecordings: what a session records, somebody else's program reads as the
// same packets, and finds the same requests in them as ours, of HTTP/1 and HTTP/2.
func TestTsharkReadsRecordings(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		hooktest.Unavailable(t, "tshark", "`make setup` installs it")
	}
	l := borrow(t)
	ln, localLn, port := l.listeners("orders")
	var live, local heard
	for h, at := range map[*heard]net.Listener{&live: ln, &local: localLn} {
		srv := h.web()
		serveUntil(t, func() error { return srv.Serve(at) }, func() { srv.Close() })
	}
	s := mirror(t, l, "orders", session.Mirror{Port: 80, To: port}, session.Mirror{Port: livePort, To: port})
	file := record(t, s)
	watch, cancel := context.WithCancel(t.Context())
	begun, told, watched := make(chan bool), make(chan session.MirroredRequest, 16), make(chan error)
	go func() {
		watched <- s.WatchRequests(watch, func() { close(begun) }, func(r session.MirroredRequest) error { told <- r; return nil })
	}()
	<-begun
	plain := l.mustDial(ordersPod, 80)
	plain.SetDeadline(time.Time{})
	http1 := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return plain, nil }}
	http2 := &http.Transport{Protocols: new(http.Protocols), DialContext: l.persist}
	http2.Protocols.SetUnencryptedHTTP2(true)
	var ours []string
	var bodies string // of HTTP/2
	for _, tr := range []*http.Transport{http1, http2} {
		for i, method := range []string{"GET", "POST", "PUT"} {
			text := strings.Repeat(fmt.Sprintf("body %d ", i), 400*i)
			req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://orders/%d?q=%%2F", i), strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			select {
			case r := <-told:
				ours = append(ours, r.Method+" "+r.Target)
			case <-time.After(patience):
				t.Fatalf("told of %q only", ours)
			}
			if tr == http1 {
				ours[len(ours)-1] += " " + text
			} else {
				bodies += text
			}
		}
		tr.CloseIdleConnections()
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	await(t, "both connections end in the file", func() bool { return file.fins.Load() == 2 })
	written := file.close(t)
	const lost, malformed, to = "tcp.analysis.ack_lost_segment", "_ws.malformed", "tcp.dstport"
	const method1, uri, body1 = "http.request.method", "http.request.uri", "http.file_data"
	const method2, path2, body2 = "http2.headers.method", "http2.headers.path", "http2.data.data"
	packets := tshark(t, file.path, lost, malformed, to, method1, uri, body1, method2, path2, body2)
	if len(packets) != written {
		t.Errorf("tshark reads %d packets of %d", len(packets), written)
	}
	var theirs []string
	var said string
	for i, p := range packets {
		if p[lost] != "" || p[malformed] != "" {
			t.Errorf("tshark complains of packet %d: %v", i+1, p)
		}
		switch {
		case p[method1] != "":
			theirs = append(theirs, p[method1]+" "+p[uri]+" "+p[body1])
		case p[method2] != "":
			theirs = append(theirs, p[method2]+" "+p[path2])
		}
		if p[to] == fmt.Sprint(livePort) {
			said += strings.ReplaceAll(p[body2], ",", "") // several frames in a packet
		}
	}
	if diff := cmp.Diff(ours, theirs); diff != "" {
		t.Errorf("requests (-ours +tshark):\n%s", diff)
	}
	if text, err := hex.DecodeString(said); err != nil || string(text) != bodies {
		t.Errorf("bodies of HTTP/2: %d bytes, %v, want %d", len(text), err, len(bodies))
	}
	if len(local.sorted()) != 6 {
		t.Errorf("the program heard %q", local.sorted())
	}
}
