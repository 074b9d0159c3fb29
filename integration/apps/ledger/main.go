// Command ledger is a sample app of the lab that speaks plain TCP and UDP, each
// port with one behaviour that a tunnel may get wrong:
//
//	7000 TCP, UDP  echo
//	7001 TCP       sink: reads to the end, answers "BYTES SHA256\n"
//	7002 TCP       source: the client sends "N SEED\n" and gets N bytes of package stream
//	7003 TCP, UDP  who: answers the peer's address and port as a line
//	7004 TCP       half-close: reads to the end first, only then sends everything back
//	7005 TCP       reset: reads one byte, then resets the connection
//	7006 TCP       stall: accepts and never reads
//
// Nothing listens on 7999.
package main

import (
	"os"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

func main() {
	os.Exit(observe.Run("ledger",
		tcpServer(":7000", echo),
		tcpServer(":7001", sink),
		tcpServer(":7002", source),
		tcpServer(":7003", who),
		tcpServer(":7004", halfClose),
		tcpServer(":7005", reset),
		tcpServer(":7006", stall),
		udpServer(":7000", echoDatagram),
		udpServer(":7003", whoDatagram),
	))
}
