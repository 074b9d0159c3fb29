package flow

import (
	"encoding/binary"
	"testing"
)

// tcpHeader returns a TCP header.
func tcpHeader(seq, ack uint32, flags uint8, options ...byte) []byte {
	b := make([]byte, 20, 20+len(options))
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = uint8(20+len(options))/4<<4, flags
	return append(b, options...)
}

func TestPureAcks(t *testing.T) {
	timestamp := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	tests := []struct {
		name    string
		header  []byte
		payload int
		want    bool
	}{
		{"ack", tcpHeader(1, 2, ACK), 0, true},
		{"ack-with-timestamp", tcpHeader(1, 2, ACK, timestamp...), 0, true},
		{"data", tcpHeader(1, 2, ACK), 1, false},
		{"pushed-data", tcpHeader(1, 2, ACK|PSH), 1, false},
		{"syn-ack", tcpHeader(1, 2, ACK|SYN), 0, false},
		{"fin", tcpHeader(1, 2, ACK|FIN), 0, false},
		{"reset", tcpHeader(1, 2, ACK|RST), 0, false},
		{"congestion-echo", tcpHeader(1, 2, ACK|1<<6), 0, false},
		{"sack", tcpHeader(1, 2, ACK, sack...), 0, false},
		{"odd-options", tcpHeader(1, 2, ACK, 1, 1, 1, 0), 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseAcking(tt.header, tt.payload); got.Pure != tt.want {
				t.Errorf("pure = %v, want %v", got.Pure, tt.want)
			}
		})
	}
}

func TestSupersedes(t *testing.T) {
	ack := ParseAcking(tcpHeader(100, 1<<32-10, ACK), 0)
	tests := []struct {
		name    string
		old     Acking
		newer   []byte
		payload int
		want    bool
	}{
		{"more", ack, tcpHeader(100, 10, ACK), 0, true}, // past the end of the numbers
		{"window", ack, tcpHeader(100, 1<<32-10, ACK), 0, true},
		{"data", ack, tcpHeader(100, 10, ACK), 500, false},
		{"fin", ack, tcpHeader(100, 10, ACK|FIN), 0, false},
		{"less", ack, tcpHeader(100, 1<<32-20, ACK), 0, false},
		{"reset", ack, tcpHeader(100, 10, ACK|RST), 0, false},
		{"reset-without-ack", ack, tcpHeader(100, 0, RST), 0, false},
		{"retransmission", ack, tcpHeader(50, 10, ACK), 50, false},
		{"probe", ParseAcking(tcpHeader(99, 10, ACK), 0), tcpHeader(100, 10, ACK), 0, false},
		{"data-after-data", ParseAcking(tcpHeader(100, 10, ACK), 1), tcpHeader(100, 10, ACK), 0, false},
		{"not-tcp", Acking{}, tcpHeader(0, 0, ACK), 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseAcking(tt.newer, tt.payload).Supersedes(tt.old); got != tt.want {
				t.Errorf("supersedes = %v, want %v", got, tt.want)
			}
		})
	}
	if (Acking{}).Supersedes(Acking{}) {
		t.Error("what is not TCP supersedes")
	}
}
