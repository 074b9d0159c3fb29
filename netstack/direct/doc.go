// Package direct carries a link over UDP between a client and an agent whose pod it can reach.
//
// A carrier is a stream of a QUIC connection: QUIC finds the path's MTU, paces, sends lost packets again and takes its turn
// with other traffic, so that everything above it is as over a port-forward, and a link changes from one to the other and
// back under live flows. The client knows the certificate that the agent shows; each carrier is proven as any other
// besides (package link), and the packets in it are WireGuard's. docs/adr/0036-direct.md says why not WireGuard's datagrams
// alone.
//
// The agent's port answers nobody who has not knocked: a datagram with a proof of the client's key. Only what comes from
// the address of the last good knock reaches QUIC.
package direct

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// A path on which nothing was heard for silence is given up: whoever uses it has another one.
	silence   = 4 * time.Second
	keepAlive = time.Second

	// Windows of a stream, and of all of them: what a link has on its way at most.
	firstStream, maxStream = 1 << 20, 4 << 20
	firstConn, maxConn     = 2 << 20, 8 << 20

	maxCarriers = 8 // of one path, those included that are being replaced

	alpn = "borrownet-link"
)

// silenced makes quic-go keep to itself that it could not get 7 MiB of socket buffer: it writes that to the standard error
// of whoever uses it, and there is nothing that a person should do about it.
var silenced = sync.OnceFunc(func() { _ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") })

func config(carriers int64) *quic.Config {
	silenced()
	return &quic.Config{
		HandshakeIdleTimeout:           2 * time.Second,
		MaxIdleTimeout:                 silence,
		KeepAlivePeriod:                keepAlive,
		MaxIncomingStreams:             carriers,
		MaxIncomingUniStreams:          -1,
		InitialStreamReceiveWindow:     firstStream,
		MaxStreamReceiveWindow:         maxStream,
		InitialConnectionReceiveWindow: firstConn,
		MaxConnectionReceiveWindow:     maxConn,
	}
}

// A Certificate is what a port shows. The client knows its sum from inside of the tunnel, so that nobody on the path can
// stand between the two: a link's control frames are in no WireGuard.
type Certificate struct{ tls tls.Certificate }

// NewCertificate makes one.
func NewCertificate() (*Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &Certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}}, nil
}

// Sum is the SHA-256 of the certificate.
func (c *Certificate) Sum() []byte {
	sum := sha256.Sum256(c.tls.Certificate[0])
	return sum[:]
}

func serverTLS(c *Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, Certificates: []tls.Certificate{c.tls}}
}

// clientTLS takes the certificate with that sum, whatever it says, and no other one.
func clientTLS(sum []byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			shown := sha256.Sum256(state.PeerCertificates[0].Raw)
			if !bytes.Equal(shown[:], sum) {
				return ErrCertificate
			}
			return nil
		},
	}
}
