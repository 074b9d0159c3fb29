package demo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
)

// TestNames resolves names as a session does: its DNS proxy asks the cluster's
// server through the pod.
func TestNames(t *testing.T) {
	l := borrow(t)
	pod, err := dnsproxy.ParseResolvConf(strings.NewReader(resolvConf))
	if err != nil {
		t.Fatal(err)
	}
	proxy := dnsproxy.New(dnsproxy.Config{Pod: pod, Dial: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
		src := netip.AddrPortFrom(apiAddr, 0)
		if network == "tcp" {
			return l.net.Stack.DialTCP(ctx, src, addr)
		}
		return l.net.Stack.DialUDP(src, addr)
	}})
	defer proxy.Close()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go proxy.ServeTCP(t.Context(), theirs) // ends with the conn
		return ours, nil
	}}
	for _, tt := range []struct {
		name string
		want []netip.Addr
	}{
		{"orders", []netip.Addr{ordersAddr}},
		{"ledger.shop", []netip.Addr{ledgerAddr, ledgerAddr6}},
		{"books", []netip.Addr{ledgerAddr, ledgerAddr6}},
		{"orders.shop.svc.cluster.local", []netip.Addr{ordersAddr}},
		{"nobody", nil},
		{"www.example.org", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got, err := resolver.LookupNetIP(ctx, "ip", tt.name+".") // without this machine's search list
			for i, a := range got {
				got[i] = a.Unmap()
			}
			slices.SortFunc(got, netip.Addr.Compare)
			if dns, ok := errors.AsType[*net.DNSError](err); !slices.Equal(got, tt.want) || tt.want == nil && (!ok || !dns.IsNotFound) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// TestAgentDies kills the agent under a session, which is lost then and says so.
func TestAgentDies(t *testing.T) {
	w, dir := serve(t)
	opener := &session.Opener{Dir: dir, Keys: session.NewKeys(dir), Connect: func(f kube.Flags) (session.Cluster, error) {
		return NewClient(dir, f), nil
	}}
	req := session.Request{Ref: "api", Hook: hook.Relay, IdleTTL: time.Minute, HardTTL: time.Hour, Kube: kube.Flags{Context: Context}}
	opening, err := opener.Open(t.Context(), req, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan *fault.Error, 1)
	s, err := opening.Start(t.Context(), "api", session.Observer{Step: func(string) {}, State: func(st session.State, problem *fault.Error) {
		if st == session.Lost {
			lost <- problem
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
	}()
	w.Kill()
	select {
	case problem := <-lost:
		if problem.Code != fault.SessionLost || !strings.Contains(problem.Reason, "killed, exit code 137") || problem.Hint != "borrownet up --pod deploy/api -n shop --context demo" {
			t.Errorf("problem %+v", problem)
		}
	case <-time.After(patience):
		t.Fatal("the session is not lost")
	}
}

// TestRoll replaces the pod under a session, which goes on at the next.
func TestRoll(t *testing.T) {
	w, dir := serve(t)
	opener := &session.Opener{Dir: dir, Keys: session.NewKeys(dir), Connect: func(f kube.Flags) (session.Cluster, error) {
		return NewClient(dir, f), nil
	}}
	req := session.Request{Ref: "api", Hook: hook.Relay, IdleTTL: time.Minute, HardTTL: time.Hour, Kube: kube.Flags{Context: Context}}
	opening, err := opener.Open(t.Context(), req, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	moved := make(chan session.Move, 1)
	s, err := opening.Start(t.Context(), "api", session.Observer{
		Step: func(string) {}, State: func(session.State, *fault.Error) {}, Moved: func(m session.Move) { moved <- m },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
	}()
	first := s.Place().Pod
	name, err := NewClient(dir, kube.Flags{}).Roll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-moved:
		if m.From != first || m.To != name || !slices.Equal(m.Env, []string{"POD_NAME"}) {
			t.Errorf("move %+v, want %s to %s", m, first, name)
		}
	case <-time.After(patience):
		t.Fatal("the session does not go on")
	}
	st := s.Status(t.Context(), true)
	if st.Target.Pod != name || st.RoundTrip == 0 || len(w.Agents(&kube.Target{UID: w.list()[0].uid})) != 1 {
		t.Errorf("status %+v", st)
	}
	if err := s.StopAgent(t.Context()); err != nil {
		t.Errorf("stop agent: %v", err)
	}
}
