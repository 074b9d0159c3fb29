package forward

import (
	"net/netip"
	"testing"
)

func TestParsePort(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Port // zero = an error
	}{
		{"5432:db:5432", Port{netip.MustParseAddrPort("127.0.0.1:5432"), "db", 5432}},
		{"db:5432", Port{netip.MustParseAddrPort("127.0.0.1:5432"), "db", 5432}},
		{"0:db.shop:80", Port{netip.MustParseAddrPort("127.0.0.1:0"), "db.shop", 80}},
		{"127.0.0.2:80:db:81", Port{netip.MustParseAddrPort("127.0.0.2:80"), "db", 81}},
		{"localhost:80:db:81", Port{netip.MustParseAddrPort("127.0.0.1:80"), "db", 81}},
		{"[::1]:80:[2001:db8::1]:81", Port{netip.MustParseAddrPort("[::1]:80"), "2001:db8::1", 81}},
		{"[2001:db8::1]:81", Port{netip.MustParseAddrPort("127.0.0.1:81"), "2001:db8::1", 81}},
		{"0.0.0.0:80:db:81", Port{}}, // not for the network
		{"192.0.2.1:80:db:81", Port{}},
		{"db", Port{}},
		{"", Port{}},
		{":80", Port{}},
		{"80::80", Port{}},
		{"80:db:0", Port{}},
		{"80:db:65536", Port{}},
		{"x:db:80", Port{}},
		{"80:a b:80", Port{}},
		{"80:http://db:80", Port{}},
	} {
		got, err := ParsePort(tt.text)
		if got != tt.want || (err == nil) != (tt.want != Port{}) {
			t.Errorf("%q: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

// FuzzParsePort: what is taken is written so that it means the same again.
func FuzzParsePort(f *testing.F) {
	for _, seed := range []string{"5432:db:5432", "[::1]:80:[2001:db8::1]:81", "db:80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePort(text)
		if err != nil {
			return
		}
		again, err := ParsePort(p.Listen.String() + ":" + p.String())
		if err != nil || again != p {
			t.Errorf("%q is %+v, and that %+v, %v", text, p, again, err)
		}
	})
}
