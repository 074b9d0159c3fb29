package dnsproxytest

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/miekg/dns"
)

// read returns the next message on c: one Write of the other side for "udp", one frame for "tcp".
func read(c net.Conn, network string) (*dns.Msg, error) {
	buf := make([]byte, dns.MaxMsgSize)
	var n int
	var err error
	if network == "tcp" {
		var head [2]byte
		if _, err = io.ReadFull(c, head[:]); err == nil {
			n, err = io.ReadFull(c, buf[:binary.BigEndian.Uint16(head[:])])
		}
	} else {
		n, err = c.Read(buf)
	}
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(buf[:n])
}

// write sends m on c, in one Write.
func write(c net.Conn, network string, m *dns.Msg) error {
	buf, err := m.Pack()
	if err != nil {
		return err
	}
	if network == "tcp" {
		buf = append(binary.BigEndian.AppendUint16(nil, uint16(len(buf))), buf...)
	}
	_, err = c.Write(buf)
	return err
}
