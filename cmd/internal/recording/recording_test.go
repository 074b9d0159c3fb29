package recording

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/replay"
)

var (
	client  = netip.MustParseAddrPort("203.0.113.7:40000")
	server  = netip.MustParseAddrPort("192.0.2.10:8080")
	server6 = netip.MustParseAddrPort("[2001:db8::10]:8080")
)

const (
	get  = "GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n"
	post = "POST /b HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\r\nbody"
)

// frame puts the head of a link before an IP packet.
func frame(link layers.LinkType, ip []byte) []byte {
	ethertype := "\x08\x00"
	if ip[0]>>4 == 6 {
		ethertype = "\x86\xdd"
	}
	head := map[layers.LinkType]string{
		layers.LinkTypeEthernet:  "srcmac" + "dstmac" + "\x81\x00\x00\x07" + ethertype, // in VLAN 7
		layers.LinkTypeLinuxSLL:  strings.Repeat("\x00", 14) + ethertype,
		layers.LinkTypeLinuxSLL2: ethertype + strings.Repeat("\x00", 18),
		layers.LinkTypeNull:      "\x02\x00\x00\x00",
	}[link]
	return append([]byte(head), ip...)
}

// write makes a pcapng file of what play does, each connection on a link of its own.
func write(t *testing.T, plays map[layers.LinkType]func(out func(mirror.Packet))) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.pcapng")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var w *pcapgo.NgWriter
	for link, play := range plays {
		id := 0
		if w == nil {
			w, err = pcapgo.NewNgWriterInterface(f, pcapgo.NgInterface{LinkType: link, TimestampResolution: 9}, pcapgo.NgWriterOptions{})
		} else {
			id, err = w.AddInterface(pcapgo.NgInterface{LinkType: link, TimestampResolution: 9})
		}
		if err != nil {
			t.Fatal(err)
		}
		play(func(p mirror.Packet) {
			data := frame(link, p.Data)
			ci := gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(data), Length: len(data), InterfaceIndex: id}
			if err := w.WritePacket(ci, data); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return path
}

// asking opens a connection and asks.
func asking(from, to netip.AddrPort, asks ...string) func(func(mirror.Packet)) {
	return func(out func(mirror.Packet)) {
		c := mirrortest.New(from, to, out)
		c.Open()
		for _, ask := range asks {
			c.Ask(ask)
			c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		c.Close()
	}
}

// program is a local program that counts what it is asked.
func program(t *testing.T) (at netip.AddrPort, heard func() map[string]int) {
	t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		counts[r.Method+" "+r.URL.Path+" "+string(body)]++
	}))
	t.Cleanup(srv.Close)
	return netip.MustParseAddrPort(srv.Listener.Addr().String()), func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return counts
	}
}

// TestReplay replays connections of both families, on links of all kinds.
func TestReplay(t *testing.T) {
	leaktest.Check(t)
	from := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(client.Addr(), port) }
	from6 := netip.MustParseAddrPort("[2001:db8::7]:40000")
	path := write(t, map[layers.LinkType]func(func(mirror.Packet)){
		layers.LinkTypeRaw:       asking(from(1), server, get, post),
		layers.LinkTypeEthernet:  asking(from6, server6, get),
		layers.LinkTypeLinuxSLL:  asking(from(3), server, get),
		layers.LinkTypeLinuxSLL2: asking(from(4), server, get),
		layers.LinkTypeNull:      asking(from(5), server, get),
	})
	to, heard := program(t)
	stats, err := Replay(t.Context(), Config{Path: path, To: to, Speed: Asap})
	if err != nil {
		t.Fatal(err)
	}
	if want := (replay.Outcomes{Seen: 6, Delivered: 6}); stats.Requests != want {
		t.Errorf("requests %+v, want %+v", stats.Requests, want)
	}
	if diff := cmp.Diff(map[string]int{"GET /a ": 5, "POST /b body": 1}, heard()); diff != "" {
		t.Errorf("the program heard (-want +got):\n%s", diff)
	}
}

// TestReplayPcap replays a file of the older format, which ends in the middle of a
// packet: what is there is delivered, and the failure is told.
func TestReplayPcap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriterNanos(f)
	if err := w.WriteFileHeader(65536, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	asking(client, server, get)(func(p mirror.Packet) {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: len(p.Data)}, p.Data); err != nil {
			t.Fatal(err)
		}
	})
	to, heard := program(t)
	stats, err := Replay(t.Context(), Config{Path: path, To: to, Speed: Asap})
	if err != nil || stats.Requests.Delivered != 1 || heard()["GET /a "] != 1 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	if _, err := f.Write([]byte("half a head")); err != nil {
		t.Fatal(err)
	}
	if _, err := Replay(t.Context(), Config{Path: path, To: to, Speed: Asap}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that ends in the middle: %v", err)
	}
}

// TestReplayKeepsTime takes as long as the recording, times the speed.
func TestReplayKeepsTime(t *testing.T) {
	var first, last time.Time
	path := write(t, map[layers.LinkType]func(func(mirror.Packet)){layers.LinkTypeRaw: func(out func(mirror.Packet)) {
		asking(client, server, strings.Split(strings.Repeat(get+"|", 50), "|")[:50]...)(func(p mirror.Packet) {
			if first.IsZero() {
				first = p.Time
			}
			last = p.Time
			out(p)
		})
	}})
	to, _ := program(t)
	begun := time.Now()
	if _, err := Replay(t.Context(), Config{Path: path, To: to, Speed: 2}); err != nil {
		t.Fatal(err)
	}
	if took, want := time.Since(begun), last.Sub(first)/2; took < want {
		t.Errorf("took %v, want at least %v", took, want)
	}
}

// TestReplayIsInterrupted does not wait for a program that hangs.
func TestReplayIsInterrupted(t *testing.T) {
	leaktest.Check(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	path := write(t, map[layers.LinkType]func(func(mirror.Packet)){layers.LinkTypeRaw: asking(client, server, get)})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c := <-accepted
		cancel()
		defer c.Close()
		io.Copy(io.Discard, c)
	}()
	if _, err := Replay(ctx, Config{Path: path, To: netip.MustParseAddrPort(ln.Addr().String()), Speed: Asap}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestServers(t *testing.T) {
	half := func(out func(mirror.Packet)) {
		c := mirrortest.New(client, server, out)
		c.Ask(get)
	}
	path := write(t, map[layers.LinkType]func(func(mirror.Packet)){layers.LinkTypeRaw: half})
	to, heard := program(t)
	if _, err := Replay(t.Context(), Config{Path: path, To: to}); !errors.Is(err, ErrNoServer) {
		t.Errorf("without an opening: %v", err)
	}
	if _, err := Replay(t.Context(), Config{Path: path, To: to, Port: 81}); !errors.Is(err, ErrNoServer) {
		t.Errorf("with another port: %v", err)
	}
	stats, err := Replay(t.Context(), Config{Path: path, To: to, Port: server.Port()})
	if err != nil || stats.Joined != 1 || heard()["GET /a "] != 1 {
		t.Errorf("with its port: %+v, %v", stats, err)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "text": "this is no recording", "half": "\x0a\x0d\x0d\x0a\x1c\x00"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); err == nil {
			f.Close()
			t.Errorf("%s is a recording", name)
		}
	}
	if _, err := Open(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestParseSpeed(t *testing.T) {
	for text, want := range map[string]float64{"asap": Asap, "1x": 1, "2x": 2, "0.5x": 0.5, "3": 3} {
		if got, err := ParseSpeed(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "0x", "-1x", "fast", "NaN", "infx"} {
		if got, err := ParseSpeed(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
