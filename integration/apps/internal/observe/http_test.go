package observe_test

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
	"github.com/borrownet/borrownet/integration/apps/stream"
)

func TestHandler(t *testing.T) {
	t.Setenv("POD_NAME", "orders-0")
	srv := httptest.NewServer(observe.Handler("orders"))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/a/b?c=d", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "orders.example.org"
	req.Header = http.Header{"X-Trace": {"1", "2"}, "User-Agent": {"test"}}
	var seen observe.Seen
	do(t, req, &seen)
	if seen.Remote == "" || seen.Local != srv.Listener.Addr().String() {
		t.Errorf("remote %q, local %q", seen.Remote, seen.Local)
	}
	seen.Remote, seen.Local = "", ""
	want := observe.Seen{
		App: "orders", Pod: "orders-0", Proto: "HTTP/1.1", Method: "PUT", Host: "orders.example.org", Path: "/a/b?c=d",
		Headers: http.Header{"X-Trace": {"1", "2"}, "User-Agent": {"test"}, "Accept-Encoding": {"gzip"}, "Content-Length": {"1"}},
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestDigestOfBytes(t *testing.T) {
	srv := httptest.NewServer(observe.Handler("api"))
	defer srv.Close()
	const n, seed = 1 << 20, 7
	res, err := srv.Client().Get(srv.URL + "/bytes?n=1048576&seed=7")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got observe.Digest
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/sha256", res.Body)
	if err != nil {
		t.Fatal(err)
	}
	do(t, req, &got)
	sum := stream.Sum(n, seed)
	if want := (observe.Digest{Bytes: n, SHA256: hex.EncodeToString(sum[:])}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestVia calls a chain of two apps, the second of which ends it, and one that is broken.
func TestVia(t *testing.T) {
	first, second := httptest.NewServer(observe.Handler("cart")), httptest.NewServer(observe.Handler("bank"))
	defer first.Close()
	defer second.Close()
	get := func(path string) (int, string) {
		res, err := first.Client().Get(first.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	next := second.Listener.Addr().String()
	var hop struct {
		App  string
		Next *struct {
			App, Path string
			Next      any
		}
	}
	code, text := get("/via/" + next)
	if err := json.Unmarshal([]byte(text), &hop); err != nil || code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", code, err, text)
	}
	if hop.App != "cart" || hop.Next == nil || hop.Next.App != "bank" || hop.Next.Path != "/via/" || hop.Next.Next != nil {
		t.Errorf("got %s", text)
	}
	second.Close()
	if code, text := get("/via/" + next); code != http.StatusBadGateway || !strings.Contains(text, next) {
		t.Errorf("a chain that is broken: status %d, %s", code, text)
	}
}

func TestBytesRefuses(t *testing.T) {
	srv := httptest.NewServer(observe.Handler("api"))
	defer srv.Close()
	for _, q := range []string{"", "?n=-1", "?n=x", "?n=1&seed=x"} {
		res, err := srv.Client().Get(srv.URL + "/bytes" + q)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("/bytes%s: status %d, want 400", q, res.StatusCode)
		}
	}
}

func TestTLS(t *testing.T) {
	conf, err := observe.SelfSigned("orders")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(observe.Handler("orders"))
	srv.TLS = conf
	srv.StartTLS()
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err == nil {
		res.Body.Close()
		t.Fatal("a self-signed certificate was trusted")
	}
	tr := srv.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true
	tr.TLSClientConfig.ServerName = "orders.example.org"
	defer tr.CloseIdleConnections()
	res, err = (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var seen observe.Seen
	if err := json.NewDecoder(res.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	if seen.TLS == nil || seen.TLS.ServerName != "orders.example.org" {
		t.Errorf("tls = %+v", seen.TLS)
	}
}

func do(t *testing.T, req *http.Request, into any) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", req.Method, req.URL, res.Status, b)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}
