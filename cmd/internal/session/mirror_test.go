package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/agent/kube"
)

// strict is a cluster whose policy admits no agent with NET_RAW.
type strict struct{ *fakeCluster }

func (c strict) Attach(ctx context.Context, t *kube.Target, spec kube.AgentSpec, progress func(string)) (*kube.Agent, error) {
	if spec.NetRaw {
		return nil, errors.Join(kube.ErrNetRaw, &kube.Error{Op: "mirror", Object: "pod shop/api-1", Reason: `policy PodSecurity "restricted" refuses it`, Hint: "ask"})
	}
	return c.fakeCluster.Attach(ctx, t, spec, progress)
}

// TestMirrorThatCannotBe: a session works without mirroring where that is not to be had, and says why.
func TestMirrorThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cluster func(*fakeCluster) cluster
		want    string
	}{
		{"policy", func(c *fakeCluster) cluster { return strict{c} }, `policy PodSecurity "restricted"`},
		{"agent", func(c *fakeCluster) cluster { return c }, "this network cannot be captured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			o := l.opening()
			o.cluster, o.req.Mirror = tt.cluster(l.cluster), []Mirror{{Port: 8080, To: 3000}}
			s, err := o.Start(t.Context(), "api", l.observer())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			l.await(Ready)
			st := s.Status(t.Context(), true)
			m := st.Mirror
			if m == nil || m.Running || m.Problem == nil || !strings.Contains(m.Problem.Error(), tt.want) {
				t.Errorf("mirror %+v, want a problem that says %q", m, tt.want)
			}
			if _, err := s.Record(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("record: %v, want an error that says %q", err, tt.want)
			}
			if st.State != Ready || st.RoundTrip == 0 {
				t.Errorf("the session is %s, round trip %v", st.State, st.RoundTrip)
			}
		})
	}
}

// TestCapturePorts: a port that the pod's proxy stands before is captured behind it.
func TestCapturePorts(t *testing.T) {
	meshed := &kube.Target{Mesh: kube.Mesh{Proxy: "istio-proxy", Inbound: []kube.Exclusion{{Ports: [][2]uint16{{9090, 9090}}}}}}
	list := []Mirror{{8080, 3000}, {9090, 9090}}
	for target, want := range map[*kube.Target]string{meshed: "lo=8080&pod=9090", {}: "pod=8080&pod=9090"} {
		if got := capturePortsOf(target, list).query().Encode(); got != want {
			t.Errorf("proxy %q: %s, want %s", target.Mesh.Proxy, got, want)
		}
	}
	if got, want := mirrorText(list), "port 8080 to 3000, port 9090 to 9090"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := fmt.Sprint((*mirroring)(nil).status()); got != "<nil>" {
		t.Errorf("without a mirror: %s", got)
	}
}
