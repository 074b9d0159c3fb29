package dnsproxy

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const hostsText = `
127.0.0.1  localhost
::1        localhost ip6-localhost
192.0.2.7  db.example.org DB   # a database
192.0.2.8  db.example.org
broken     line
2001:db8::7 six
`

func TestHosts(t *testing.T) {
	tests := []struct {
		name, text, qname string
		qtype             uint16
		want              string // addresses, "none" = the file has no record, "" = not the file's
	}{
		{"a", hostsText, "localhost.", dns.TypeA, "127.0.0.1"},
		{"aaaa", hostsText, "localhost.", dns.TypeAAAA, "::1"},
		{"case", hostsText, "Db.", dns.TypeA, "192.0.2.7"},
		{"several", hostsText, "db.example.org.", dns.TypeA, "192.0.2.7 192.0.2.8"},
		{"no-aaaa", hostsText, "db.", dns.TypeAAAA, "none"},
		{"other-type", hostsText, "db.", dns.TypeMX, ""},
		{"unknown", hostsText, "orders.", dns.TypeA, ""},
		{"comment", hostsText, "database.", dns.TypeA, ""},
		{"no-file", "", "localhost.", dns.TypeA, "127.0.0.1"},
		{"ptr", hostsText, "7.2.0.192.in-addr.arpa.", dns.TypePTR, "db.example.org."},
		{"ptr-unknown", hostsText, "9.2.0.192.in-addr.arpa.", dns.TypePTR, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := new(dns.Msg)
			m.SetQuestion(tt.qname, tt.qtype)
			query, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if b := ParseHosts([]byte(tt.text)).Answer(query); b != nil {
				var reply dns.Msg
				if err := reply.Unpack(b); err != nil || reply.Id != m.Id || !reply.Response {
					t.Fatalf("%v, %v", reply, err)
				}
				var words []string
				for _, rr := range reply.Answer {
					switch rr := rr.(type) {
					case *dns.A:
						words = append(words, rr.A.String())
					case *dns.AAAA:
						words = append(words, rr.AAAA.String())
					case *dns.PTR:
						words = append(words, rr.Ptr)
					}
				}
				if got = strings.Join(words, " "); got == "" {
					got = "none"
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if ParseHosts(nil).Answer([]byte("not DNS")) != nil {
		t.Error("answers what is no query")
	}
}
