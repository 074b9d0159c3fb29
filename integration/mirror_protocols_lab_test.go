//go:build lab

package integration

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// speaker is a pod that speaks WebSocket, HTTP/2 and gRPC. In a mesh its sidecar does so with it, by the names of the ports.
const speaker = `---
apiVersion: v1
kind: Service
metadata: {name: speaker, namespace: mirrored}
spec:
  selector: {app: speaker}
  ports:
  - {name: http-web, port: 80, targetPort: 8080}
  - {name: http2-web, port: 8081}
  - {name: grpc-web, port: 9090}
---
apiVersion: v1
kind: Pod
metadata: {name: speaker, namespace: mirrored, labels: {app: speaker}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: speaker
    image: lab.local/orders:1
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// listener is a program of the laptop that notes what it hears, by the means of HTTP only.
type listener struct {
	port int

	mu    sync.Mutex
	lines []string
}

// listen serves until the test ends.
func listen(t *testing.T) *listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{port: ln.Addr().(*net.TCPAddr).Port}
	srv := &http.Server{Handler: l, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	return l
}

// ServeHTTP implements http.Handler.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		return // who has waited for the Service
	}
	var messages []int
	err := errors.New("which has no messages")
	switch {
	case r.Header.Get("Upgrade") == "websocket":
		messages, err = hearWebSocket(w, r)
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		messages, err = hearGRPC(r.Body)
	case r.ContentLength == 0:
		err = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%s %s %s %v", r.Proto, r.Method, r.URL.Path, messages)
	if err != nil {
		line += ": " + err.Error()
	}
	l.lines = append(l.lines, line)
}

func (l *listener) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.lines))
}

// hearGRPC returns how long the messages of a call are (gRPC over HTTP/2, Length-Prefixed-Message).
func hearGRPC(body io.Reader) (lengths []int, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(body, head[:]); err == io.EOF {
			return lengths, nil
		} else if err != nil {
			return lengths, err
		}
		n := int64(binary.BigEndian.Uint32(head[1:]))
		if _, err := io.CopyN(io.Discard, body, n); err != nil {
			return lengths, err
		}
		lengths = append(lengths, int(n))
	}
}

// hearWebSocket takes the upgrade and returns how long the binary messages are that come, all of which are of the letter x
// (RFC 6455 §5.2).
func hearWebSocket(w http.ResponseWriter, r *http.Request) (lengths []int, err error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(key[:]))
	message := 0
	for {
		payload, final, err := readFrame(buf.Reader)
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) { // the caller just leaves
			return lengths, nil
		}
		if err != nil {
			return lengths, err
		}
		if len(bytes.Trim(payload, "x")) > 0 {
			return lengths, fmt.Errorf("a frame of %d bytes has others", len(payload))
		}
		message += len(payload)
		if final {
			lengths, message = append(lengths, message), 0
		}
	}
}

// readFrame reads a masked frame of a binary message, which may be its last.
func readFrame(r *bufio.Reader) (payload []byte, final bool, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, err
	}
	const fin, masked, continuation, binaryData = 0x80, 0x80, 0, 2
	if op := head[0] &^ fin; op != continuation && op != binaryData || head[1]&masked == 0 {
		return nil, false, fmt.Errorf("a frame that begins with %x", head)
	}
	n := int(head[1] &^ masked)
	if n > 125 {
		var more [8]byte
		width := map[int]int{126: 2, 127: 8}[n]
		if _, err := io.ReadFull(r, more[8-width:]); err != nil {
			return nil, false, err
		}
		n = int(binary.BigEndian.Uint64(more[:]))
	}
	text := make([]byte, 4+n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, false, err
	}
	mask, payload := text[:4], text[4:]
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return payload, head[0]&fin != 0, nil
}

// mirrorProtocols: what callers say by WebSocket, HTTP/2 and gRPC, in streams too, a program of the laptop hears.
func mirrorProtocols(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, speaker))
	awaitMirroredPods(t)
	l := listen(t)
	args := []string{"up", "-d", "-n", mirrored, "--pod", "speaker", "--session", "speaker"}
	for _, port := range []int{8080, 8081, 9090} {
		args = append(args, "--mirror", fmt.Sprintf("%d:%d", port, l.port))
	}
	mustBorrownet(t, args...)
	t.Cleanup(func() { borrownet(t, "down", "speaker", "--stop-agent") })
	waitFor(t, "the callers' sidecar, if they have one, and their node know the Service", patience, func() bool {
		return strings.HasPrefix(callFromLoad(t, "get", "http://speaker/").stdout, "200 ")
	})
	for _, call := range [][]string{{"get", "http://speaker/one"}, {"h2c", "http://speaker:8081/two"}, {"ws", "ws://speaker/ws"}, {"grpc", "speaker:9090"}} {
		if r := callFromLoad(t, call...); r.code != 0 {
			t.Fatalf("%q: %v", call, r)
		}
	}
	// The lengths are those of what integration/apps/internal/call sends.
	const service = "HTTP/2.0 POST /grpc.testing.TestService/"
	want := []string{
		"HTTP/1.1 GET /one []",
		"HTTP/2.0 GET /two []",
		"HTTP/1.1 GET /ws [1 1000 70000]",
		service + "UnaryCall [23]",
		service + "UnaryCall [0]",
		service + "StreamingOutputCall [21]",
		service + "StreamingInputCall [31423 13 2659 258987]",
		service + "FullDuplexCall [6 4 5 6]",
	}
	slices.Sort(want)
	var st mirrorState
	waitFor(t, "the program hears of all of it, or packets are counted as missing", patience, func() bool {
		st = mirrorOf(t, "speaker")
		return len(l.heard()) >= len(want) || st.missed() > 0
	})
	switch diff := cmp.Diff(want, l.heard()); {
	case diff == "":
	case st.missed() > 0:
		t.Logf("packets are counted as missing, and the program heard (-want +got):\n%s\n%s", diff, st.text)
	default:
		t.Errorf("the program heard (-want +got):\n%s\n%s", diff, st.text)
	}
}
