package pcapng

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var (
	early = time.Unix(1700000000, 123456789)
	some  = []Packet{
		{Time: early, Interface: 1, Link: LinkEthernet, Length: 1500, Data: bytes.Repeat([]byte{1}, 127)},
		{Time: early.Add(time.Second), Link: LinkRaw, Length: 1, Data: []byte{2}},
		{Time: early.Add(time.Hour), Link: LinkRaw, Length: 4, Data: []byte{3, 3, 3, 3}},
	}
)

// readAll returns the packets of a file, and how it ended if not as it should.
func readAll(r io.Reader) ([]Packet, error) {
	f, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	var out []Packet
	for {
		p, err := f.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
}

// write writes packets and counters.
func write(t *testing.T, packets []Packet) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file, "a program", []Interface{{Name: "lo", Link: LinkRaw}, {Name: "eth0", Link: LinkEthernet, MaxPacket: 128}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.Packet(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Statistics(0, Statistics{Time: early, Received: 9, Dropped: 7, Comment: "some"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestReadsWhatItWrites(t *testing.T) {
	file := write(t, some)
	got, err := readAll(iotest.OneByteReader(bytes.NewReader(file)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(some, got); diff != "" {
		t.Errorf("packets (-want +got)\n%s", diff)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(file)
	z.Close()
	if got, err = readAll(&zipped); err != nil || len(got) != len(some) {
		t.Errorf("compressed: %d packets, %v", len(got), err)
	}
}

// TestOthersReadIt reads with another library what is written.
func TestOthersReadIt(t *testing.T) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(write(t, some)), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range some {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		link, _ := ci.AncillaryData[0].(layers.LinkType)
		got := Packet{Time: ci.Timestamp, Interface: ci.InterfaceIndex, Link: Link(link), Length: ci.Length, Data: data}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("packet %d (-want +got)\n%s", i, diff)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if got := r.SectionInfo().Application; got != "a program" {
		t.Errorf("written by %q", got)
	}
	eth, err := r.Interface(1)
	if err != nil || eth.Name != "eth0" || eth.LinkType != layers.LinkTypeEthernet || eth.SnapLength != 128 {
		t.Errorf("interface 1: %+v, %v", eth, err)
	}
	lo, err := r.Interface(0)
	if err != nil {
		t.Fatal(err)
	}
	if s := lo.Statistics; s.PacketsReceived != 9 || s.PacketsDropped != 7 || s.Comment != "some" || !s.LastUpdate.Equal(early) {
		t.Errorf("counters: %+v", s)
	}
}

// TestReadsOthers reads what another library writes, in the older format too.
func TestReadsOthers(t *testing.T) {
	info := func(p Packet) gopacket.CaptureInfo {
		return gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length, InterfaceIndex: p.Interface}
	}
	t.Run("pcapng", func(t *testing.T) {
		var file bytes.Buffer
		w, err := pcapgo.NewNgWriter(&file, layers.LinkTypeRaw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.AddInterface(pcapgo.NgInterface{Name: "e", Filter: "tcp", LinkType: layers.LinkTypeEthernet}); err != nil {
			t.Fatal(err)
		}
		for _, p := range some {
			if err := w.WritePacket(info(p), p.Data); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		got, err := readAll(&file)
		if diff := cmp.Diff(some, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
	for name, tt := range map[string]struct {
		writer func(io.Writer) *pcapgo.Writer
		unit   time.Duration
	}{
		"pcap":             {pcapgo.NewWriter, time.Microsecond},
		"pcap-nanoseconds": {pcapgo.NewWriterNanos, time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			w := tt.writer(&file)
			if err := w.WriteFileHeader(65536, layers.LinkTypeLinuxSLL2); err != nil {
				t.Fatal(err)
			}
			var want []Packet
			for _, p := range some {
				if err := w.WritePacket(info(p), p.Data); err != nil {
					t.Fatal(err)
				}
				p.Interface, p.Link, p.Time = 0, LinkLinuxSLL2, p.Time.Truncate(tt.unit)
				want = append(want, p)
			}
			got, err := readAll(&file)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

// part makes a block of numbers and padded text.
func part(order binary.AppendByteOrder, kind uint32, fields ...any) []byte {
	var body []byte
	for _, f := range fields {
		switch v := f.(type) {
		case uint16:
			body = order.AppendUint16(body, v)
		case uint32:
			body = order.AppendUint32(body, v)
		case uint64:
			body = order.AppendUint64(body, v)
		case string:
			body = appendPadded(body, []byte(v))
		}
	}
	length := uint32(len(body) + blockHead + blockTail)
	b := order.AppendUint32(order.AppendUint32(nil, kind), length)
	return order.AppendUint32(append(b, body...), length)
}

func section(order binary.AppendByteOrder, version uint16) []byte {
	return part(order, blockSection, uint32(byteOrderMagic), version, uint16(0), unknownLength)
}

// TestRareFiles reads what few write: other byte orders and units of time, sections
// behind each other, packets without a time, blocks that are not known.
func TestRareFiles(t *testing.T) {
	var le, be binary.AppendByteOrder = binary.LittleEndian, binary.BigEndian
	ether := func(order binary.AppendByteOrder, options ...any) []byte {
		return part(order, blockInterface, append([]any{uint16(LinkEthernet), uint16(0), uint32(4)}, options...)...)
	}
	packet := func(order binary.AppendByteOrder, high, low uint32) []byte {
		return part(order, blockPacket, uint32(0), high, low, uint32(3), uint32(9), "abc")
	}
	want := func(at time.Time) []Packet {
		return []Packet{{Time: at, Link: LinkEthernet, Length: 9, Data: []byte("abc")}}
	}
	for _, tt := range []struct {
		name string
		file [][]byte
		want []Packet
	}{
		{"empty", [][]byte{section(le, 1)}, nil},
		{"big-endian", [][]byte{section(be, 1), ether(be), packet(be, 0, 1500000)}, want(time.Unix(1, 5e8))},
		{"milliseconds", [][]byte{section(le, 1), ether(le, uint16(9), uint16(1), "\x03"), packet(le, 1, 1)}, want(time.UnixMilli(1<<32 + 1))},
		{"power-of-two", [][]byte{section(le, 1), ether(le, uint16(9), uint16(1), "\x8a"), packet(le, 0, 1536)}, want(time.Unix(1, 5e8))},
		{"offset", [][]byte{section(be, 1), ether(be, uint16(14), uint16(8), uint64(100), uint16(0), uint16(0)), packet(be, 0, 1)}, want(time.Unix(100, 1000))},
		{"options-behind-the-end", [][]byte{section(le, 1), ether(le, uint16(0), uint16(0), uint16(9), uint16(1), "\xff"), packet(le, 0, 1)}, want(time.Unix(0, 1000))},
		{"unknown-block", [][]byte{section(le, 1), part(le, 0xbad, "what"), ether(le), part(le, 0x0a, strings.Repeat("x", 3<<20)), packet(le, 0, 0)}, want(time.Unix(0, 0))},
		{"unknown-version", [][]byte{section(le, 2), part(le, blockPacket, "?"), section(be, 1), ether(be), packet(be, 0, 0)}, want(time.Unix(0, 0))},
		{"sections", [][]byte{section(le, 1), ether(le), packet(le, 0, 0), section(be, 1), ether(be), packet(be, 0, 0)},
			append(want(time.Unix(0, 0)), want(time.Unix(0, 0))...)},
		{"simple", [][]byte{section(le, 1), ether(le), part(le, blockSimple, uint32(9), "abcd")},
			[]Packet{{Link: LinkEthernet, Length: 9, Data: []byte("abcd")}}},
		{"simple-whole", [][]byte{section(le, 1), ether(le), part(le, blockSimple, uint32(3), "abc")},
			[]Packet{{Link: LinkEthernet, Length: 3, Data: []byte("abc")}}},
		{"obsolete", [][]byte{section(le, 1), ether(le), part(le, blockOldPacket, uint16(0), uint16(7), uint32(0), uint32(1), uint32(3), uint32(9), "abc")},
			want(time.Unix(0, 1000))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(bytes.NewReader(bytes.Join(tt.file, nil)))
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

// TestBrokenFiles: each has an error, and none makes the reader ask for much memory.
func TestBrokenFiles(t *testing.T) {
	le := binary.LittleEndian
	head := append(section(le, 1), part(le, blockInterface, uint16(1), uint16(0), uint32(0))...)
	with := func(b []byte) []byte { return append(bytes.Clone(head), b...) }
	pcap := append(le.AppendUint32(nil, pcapMicroseconds), make([]byte, 20)...)
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "too short"},
		{"text", []byte("this is no recording of anything"), ErrFormat.Error()},
		{"short-text", []byte("hello"), ErrFormat.Error()},
		{"no-gzip", []byte("\x1f\x8b\x08\x00"), "decompress"},
		{"no-byte-order", bytes.Repeat([]byte{0x0a, 0x0d, 0x0d, 0x0a}, 9), "no byte order"},
		{"tiny-block", with([]byte{1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}), "a block of 8 bytes"},
		{"odd-block", with([]byte{1, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0}), "a block of 13 bytes"},
		{"huge-packet", with(part(le, blockPacket, uint32(0), uint64(0), uint32(1<<31), uint32(1<<31))), "a packet of 2147483648 bytes"},
		{"packet-past-its-block", with(part(le, blockPacket, uint32(0), uint64(0), uint32(99), uint32(99), "abc")), "95 bytes too short"},
		{"packet-of-no-interface", with(part(le, blockPacket, uint32(1), uint64(0), uint32(0), uint32(0))), "interface 1 of 1"},
		{"simple-of-no-interface", append(section(le, 1), part(le, blockSimple, uint32(0))...), "interface 0 of 0"},
		{"bad-resolution", append(section(le, 1), part(le, blockInterface, uint32(1), uint32(0), uint16(9), uint16(1), "\x7f")...), "resolution 0x7f"},
		{"huge-options", append(section(le, 1), part(le, blockInterface, uint32(1), uint32(0), strings.Repeat("x", 2<<20))...), "bytes of options"},
		{"huge-pcap-packet", append(bytes.Clone(pcap), bytes.Repeat([]byte{0xff}, 16)...), "a packet of 4294967295 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := readAll(bytes.NewReader(tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestCutFiles ends a file at each of its bytes: it is whole only between blocks.
func TestCutFiles(t *testing.T) {
	file := write(t, some)
	between := map[int]bool{}
	for at := 0; at < len(file); at += int(binary.LittleEndian.Uint32(file[at+4:])) {
		between[at] = true
	}
	for n := 28; n < len(file); n++ {
		_, err := readAll(bytes.NewReader(file[:n]))
		if between[n] != (err == nil) || err != nil && n >= blockHead && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	w, err := NewWriter(io.Discard, strings.Repeat("x", 1<<17), []Interface{{Name: "lo"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Packet{
		"unknown-interface": {Interface: 1, Length: 1, Data: []byte{1}},
		"negative":          {Interface: -1, Length: 1, Data: []byte{1}},
		"shorter-than-data": {Length: 1, Data: []byte{1, 2}},
		"too-long":          {Length: MaxPacket + 1, Data: make([]byte, MaxPacket+1)},
	} {
		if err := w.Packet(p); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := w.Statistics(1, Statistics{}); err == nil {
		t.Error("counters of an unknown interface are taken")
	}
	full := fmt.Errorf("disk is full")
	w, err = NewWriter(writerFunc(func([]byte) (int, error) { return 0, full }), "", []Interface{{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, full) {
		t.Errorf("flush: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// FuzzReader reads anything, and what it makes of it can be written and read again.
func FuzzReader(f *testing.F) {
	le := binary.LittleEndian
	f.Add([]byte("text"))
	f.Add(append(section(binary.BigEndian, 1), part(binary.BigEndian, blockInterface, uint16(1), uint16(0), uint32(0), uint16(9), uint16(1), "\x8a")...))
	f.Add(bytes.Join([][]byte{section(le, 1), part(le, blockInterface, uint16(1), uint16(0), uint32(2)),
		part(le, blockSimple, uint32(9), "ab"), part(le, blockPacket, uint32(0), uint64(5), uint32(3), uint32(9), "abc")}, nil))
	f.Add(append(le.AppendUint32(nil, pcapNanoseconds), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, _ := readAll(bytes.NewReader(b))
		links := 0
		for i := range packets {
			links = max(links, packets[i].Interface+1)
			packets[i].Time = time.Unix(0, packets[i].Time.UnixNano()) // what fits into a file
		}
		var out bytes.Buffer
		w, err := NewWriter(&out, "fuzz", make([]Interface, links))
		if err != nil {
			t.Fatal(err)
		}
		for i := range packets {
			packets[i].Link = LinkNull
			if packets[i].Time.IsZero() || packets[i].Time.UnixNano() < 0 {
				packets[i].Time = time.Unix(0, 0)
			}
			if err := w.Packet(packets[i]); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		got, err := readAll(&out)
		if diff := cmp.Diff(packets, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
}
