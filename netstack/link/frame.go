package link

import (
	"bufio"
	"encoding/binary"
	"io"
)

// After the proof each direction of a carrier is a sequence of frames. A datagram is its length in two bytes, 1 to
// 65535, and itself. Length 0 begins a control frame:
//
//	0 0 | code 1 | length 1 | length bytes
//
// Codes that a reader does not know are skipped.
const (
	maxDatagram   = 1<<16 - 1
	frameHeader   = 2
	controlHeader = 4

	codePing = 1 // 8 opaque bytes; answered by a pong with the same
	codePong = 2
	// An acknowledgement: 8 bytes, how many datagrams have been received on the link, over all carriers.
	codeAck = 3
	// The first frame on a carrier but for pings: 8 bytes as of an acknowledgement. Nothing that was received on an
	// earlier carrier comes after it, so the peer may send again what is missing.
	codeResume = 4
	// A datagram ahead of the others, up to 255 bytes: it is neither counted nor sent again.
	codeUrgent = 5
	// No payload: the sender ends for good.
	codeBye  = 6
	tokenLen = 8 // of the other payloads
)

// readBuffer holds at least one frame of the largest size whole; one read of a busy carrier fills it.
const readBuffer = 256 << 10

func appendDatagram(b, p []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	return append(b, p...)
}

// appendControl appends a control frame; payload is at most 255 bytes.
func appendControl(b []byte, code byte, payload []byte) []byte {
	b = append(b, 0, 0, code, byte(len(payload)))
	return append(b, payload...)
}

// frameReader takes frames apart.
type frameReader struct {
	br      *bufio.Reader
	control func(code byte, payload []byte) // must not block nor keep payload
	count   uint64                          // datagrams read whole since takeCount
}

// takeCount returns how many datagrams were read whole since it was called last, those that were dropped included.
func (f *frameReader) takeCount() uint64 {
	n := f.count
	f.count = 0
	return n
}

// read waits for at least one datagram and takes those that arrived with it, at most one per buffer. Control frames
// on the way are handed out. A datagram longer than its buffer is dropped.
func (f *frameReader) read(bufs [][]byte, sizes []int) (n int, err error) {
	for n < len(bufs) {
		if n > 0 && !f.buffered() {
			break
		}
		head, err := f.br.Peek(frameHeader)
		if err != nil {
			return n, err
		}
		size := int(binary.BigEndian.Uint16(head))
		switch {
		case size == 0:
			n, err = f.readControl(bufs, sizes, n)
		case size > len(bufs[n]):
			if _, err = f.br.Discard(frameHeader + size); err == nil {
				f.count++
			}
		default:
			f.br.Discard(frameHeader) // peeked: cannot fail
			_, err = io.ReadFull(f.br, bufs[n][:size])
			if err == nil {
				sizes[n] = size
				n++
				f.count++
			}
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readControl reads a control frame. An urgent datagram goes to bufs[n]; it returns how many of bufs are in use then.
func (f *frameReader) readControl(bufs [][]byte, sizes []int, n int) (int, error) {
	head, err := f.br.Peek(controlHeader)
	if err != nil {
		return n, err
	}
	code, size := head[2], int(head[3])
	frame, err := f.br.Peek(controlHeader + size)
	if err != nil {
		return n, err
	}
	payload := frame[controlHeader:]
	switch {
	case code != codeUrgent:
		f.control(code, payload)
	case 0 < size && size <= len(bufs[n]):
		sizes[n] = copy(bufs[n], payload)
		n++
	}
	f.br.Discard(len(frame)) // peeked: cannot fail
	return n, nil
}

// buffered reports whether the next frame can be read without waiting.
func (f *frameReader) buffered() bool {
	have := f.br.Buffered()
	if have < frameHeader {
		return false
	}
	head, _ := f.br.Peek(frameHeader)
	if size := int(binary.BigEndian.Uint16(head)); size != 0 {
		return have >= frameHeader+size
	}
	if have < controlHeader {
		return false
	}
	head, _ = f.br.Peek(controlHeader)
	return have >= controlHeader+int(head[3])
}
