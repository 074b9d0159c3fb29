// Package pcapng writes files of captured packets in the format pcapng, and reads
// them and those of the older format pcap, compressed with gzip or not
// (draft-ietf-opsawg-pcapng, draft-ietf-opsawg-pcap).
//
// It knows of packets their time, interface, link and length, and leaves out
// everything else that a file may say. It starts no goroutine and closes nothing.
package pcapng

import "time"

// Link is the kind of a link: what is before the IP packet (LINKTYPE_ of pcap).
type Link uint16

// Links.
const (
	LinkNull      Link = 0 // 4 bytes of address family
	LinkEthernet  Link = 1
	LinkRaw       Link = 101 // nothing: the IP packet itself
	LinkLoop      Link = 108 // as LinkNull, of OpenBSD
	LinkLinuxSLL  Link = 113 // of the interface "any"
	LinkIPv4      Link = 228
	LinkIPv6      Link = 229
	LinkLinuxSLL2 Link = 276
)

// Packet is one captured packet.
type Packet struct {
	Time      time.Time // zero if the file does not say it
	Interface int       // its number in the file
	Link      Link      // of the interface; not looked at when a packet is written
	Length    int       // on the wire; Data may be less
	Data      []byte
}

// MaxPacket is how many bytes of a packet may be captured: tcpdump's and
// Wireshark's limit too.
const MaxPacket = 256 << 10

// Types of blocks.
const (
	blockInterface   = 1
	blockOldPacket   = 2 // obsolete, but written by some
	blockSimple      = 3 // a packet without a time, of interface 0
	blockStatistics  = 5
	blockPacket      = 6
	blockSection     = 0x0a0d0d0a
	byteOrderMagic   = 0x1a2b3c4d
	blockHead        = 8 // type and length
	blockTail        = 4 // the length again
	majorVersion     = 1
	unknownLength    = ^uint64(0) // of a section
	defaultPrecision = 6          // of times: 10^-6 s
)

// Codes of options.
const (
	optionEnd             = 0
	optionComment         = 1
	optionSectionProgram  = 4
	optionInterfaceName   = 2
	optionTimeResolution  = 9
	optionTimeOffset      = 14
	optionPacketsReceived = 4
	optionPacketsDropped  = 5
	binaryResolution      = 0x80 // a power of 2, not of 10
	nanosecondsResolution = 9
	maxInterfaces         = 1 << 16
	optionHead            = 4
	maxOptions            = 1 << 20 // of an interface that is read
	maxOption             = 1<<16 - 1
)
