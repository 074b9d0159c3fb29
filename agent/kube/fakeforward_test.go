package kube

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gorilla/websocket"
	xwebsocket "golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// forwarder is the kubelet's side of port-forward, built from the cluster's
// own SPDY server: serve gets each data stream with its port.
type forwarder struct {
	f         *fakeAPI
	spdy      func(http.ResponseWriter, *http.Request) bool // answers instead of SPDY; nil = SPDY works
	webSocket func(http.ResponseWriter, *http.Request) bool // the same for WebSocket
	silent    bool                                          // accepts no stream
	serve     func(s httpstream.Stream, port string) error  // its error goes to the error stream
	tried     [2]atomic.Int32                               // SPDY, WebSocket upgrades seen
}

func newForwarder(f *fakeAPI) *forwarder {
	fw := &forwarder{f: f, serve: func(s httpstream.Stream, _ string) error { _, err := io.Copy(s, s); return err }}
	f.intercept = fw.handle
	return fw
}

func (fw *forwarder) handle(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasSuffix(r.URL.Path, "/portforward") || r.Header.Get("Authorization") != "Bearer secret" {
		return false
	}
	if websocket.IsWebSocketUpgrade(r) {
		fw.tried[1].Add(1)
		if fw.webSocket == nil || !fw.webSocket(w, r) {
			fw.serveWebSocket(w, r)
		}
		return true
	}
	fw.tried[0].Add(1)
	if fw.spdy == nil || !fw.spdy(w, r) {
		fw.serveSPDY(w, r)
	}
	return true
}

func (fw *forwarder) serveSPDY(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{protocolV1}); err != nil {
		fw.f.t.Log(err)
		return
	}
	streams := make(chan httpstream.Stream, 10)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, fw.accept(streams))
	if conn != nil {
		fw.run(conn, streams)
	}
}

func (fw *forwarder) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-WebSocket-Protocol") == channelProtocol {
		fw.serveChannel(w, r)
		return
	}
	up := websocket.Upgrader{Subprotocols: []string{tunnelPrefix + protocolV1}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		fw.f.t.Log(err)
		return
	}
	streams := make(chan httpstream.Stream, 10)
	conn, err := spdy.NewServerConnection(newFrameConn(&messageConn{conn: ws}), fw.accept(streams))
	if err != nil {
		fw.f.t.Log(err)
		return
	}
	fw.run(conn, streams)
}

// serveChannel is the kubelet's side of the channel protocol, with the library that streaming servers use: it takes each
// frame for a message.
func (fw *forwarder) serveChannel(w http.ResponseWriter, r *http.Request) {
	port := r.URL.Query().Get("ports")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || fw.silent {
		http.Error(w, "no such port", http.StatusBadRequest)
		return
	}
	server := xwebsocket.Server{
		Handshake: func(cfg *xwebsocket.Config, _ *http.Request) error {
			cfg.Protocol = []string{channelProtocol}
			return nil
		},
		Handler: func(ws *xwebsocket.Conn) {
			fw.f.t.Cleanup(func() { ws.Close() })
			s := &channelStream{ws: ws}
			for channel := range byte(2) {
				if s.send(channel, binary.LittleEndian.AppendUint16(nil, uint16(n))) != nil {
					return
				}
			}
			if err := fw.serve(s, port); err != nil {
				s.send(portError, []byte(err.Error()))
			}
		},
	}
	server.ServeHTTP(w, r)
}

// channelStream is the data channel of a connection of the channel protocol.
type channelStream struct {
	httpstream.Stream // nil: what is not below is not used
	ws                *xwebsocket.Conn
	rest              []byte
}

func (s *channelStream) send(channel byte, p []byte) error {
	return xwebsocket.Message.Send(s.ws, append([]byte{channel}, p...))
}

func (s *channelStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		var msg []byte
		if err := xwebsocket.Message.Receive(s.ws, &msg); err != nil {
			return 0, err
		}
		if len(msg) > 0 && msg[0] == portData { // others are ignored, as by the kubelet
			s.rest = msg[1:]
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *channelStream) Write(p []byte) (int, error) { return len(p), s.send(portData, p) }

func (fw *forwarder) accept(streams chan httpstream.Stream) httpstream.NewStreamHandler {
	return func(s httpstream.Stream, _ <-chan struct{}) error {
		if fw.silent {
			return fmt.Errorf("no")
		}
		streams <- s
		return nil
	}
}

// run pairs the two streams, as the kubelet does, and serves them.
func (fw *forwarder) run(conn httpstream.Connection, streams chan httpstream.Stream) {
	defer conn.Close()
	fw.f.t.Cleanup(func() { conn.Close() }) // a stream that is not read hides the connection's end
	var data, errs httpstream.Stream
	for data == nil || errs == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(api.StreamType) == api.StreamTypeError {
				errs = s
			} else {
				data = s
			}
		case <-conn.CloseChan():
			return
		}
	}
	go func() {
		defer data.Close()
		defer errs.Close()
		if err := fw.serve(data, data.Headers().Get(api.PortHeader)); err != nil {
			fmt.Fprint(errs, err)
		}
	}()
	<-conn.CloseChan()
}

// stuck hijacks a connection and says nothing more on it.
func (fw *forwarder) stuck(w http.ResponseWriter, r *http.Request) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		fw.f.t.Error(err)
		return true
	}
	fw.f.t.Cleanup(func() { conn.Close() })
	return true
}
