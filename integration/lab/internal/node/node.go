package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/laptop"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// limit bounds each wait of the start: far beyond what any machine has needed.
const limit = 5 * time.Minute

// Run starts everything, reports on the way, and returns when a component has
// ended, which is never in a healthy lab. Its end is the node's end.
func Run(ctx context.Context, s spec.Spec, report *Reporter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := newComponents(s)
	var died error
	var watch sync.WaitGroup
	watch.Add(1)
	go func() { // ends with a component or with ctx
		defer watch.Done()
		select {
		case died = <-c.died:
			cancel(died)
		case <-ctx.Done():
		}
	}()
	begin := func() error { return join(ctx, s, c) }
	if !s.Joins {
		begin = func() error {
			laptopPID, err := start(ctx, s, c, report)
			if err != nil {
				return err
			}
			return report.Ready(laptopPID)
		}
	}
	if err := begin(); err != nil {
		cancel(err)
		watch.Wait()
		return errors.Join(died, err)
	}
	watch.Wait()
	return died
}

// start brings the lab up, the long waits side by side, and returns the pid of
// the laptop's process 1.
func start(ctx context.Context, s spec.Spec, c *components, report *Reporter) (laptopPID int, err error) {
	if err := setUpNetwork(ctx, links); err != nil {
		return 0, err
	}
	if err := c.equip(); err != nil {
		return 0, err
	}
	if err := c.etcd(); err != nil {
		return 0, err
	}
	imported := make(chan error, 1)
	go func() { imported <- importImages(ctx, s) }() // ends with ctx at the latest

	ca, err := writeCredentials(s)
	if err != nil {
		return 0, err
	}
	lap, err := laptop.Start(s)
	if err != nil {
		return 0, err
	}
	if err := connectLaptop(ctx, lap.PID()); err != nil {
		return 0, err
	}
	if err := lap.Finish(); err != nil {
		return 0, err
	}
	report.Step("namespaces, laptop and containerd")
	client, err := startControlPlane(ctx, c, ca, report)
	if err != nil {
		return 0, err
	}
	if err := waitReady(ctx, s, client, imported, report); err != nil {
		return 0, err
	}
	if s.Nodes > 1 {
		if err := addSecond(ctx, s, c, ca, client); err != nil {
			return 0, err
		}
		report.Step("second node Ready")
	}
	return lap.PID(), nil
}

// equip gives a node what containers are run by, and runs containerd.
func (c *components) equip() error {
	s := c.spec
	if err := os.MkdirAll(s.Path("log"), 0o755); err != nil {
		return err
	}
	if err := writeConfigs(s); err != nil {
		return err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := installPlugins(exe); err != nil {
		return err
	}
	if s.Mesh {
		if err := chainMeshPlugin(s); err != nil {
			return err
		}
	}
	return c.containerd()
}

func writeCredentials(s spec.Spec) (*cluster.Authority, error) {
	ca, err := cluster.NewAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.WritePKI(s.Path("pki")); err != nil {
		return nil, err
	}
	if err := ca.WriteNode(s.Dir, s.Machine()); err != nil {
		return nil, err
	}
	return ca, ca.WriteKubeconfigs(s.Path("kubeconfig"))
}

// startControlPlane starts the API server only when etcd is healthy: its many
// connections to it would else wait out a second of backoff.
func startControlPlane(ctx context.Context, c *components, ca *cluster.Authority, report *Reporter) (*cluster.Client, error) {
	if err := cluster.Wait(ctx, limit, "etcd", etcdHealthy); err != nil {
		return nil, err
	}
	if err := c.apiserver(); err != nil {
		return nil, err
	}
	client, err := ca.NewClient()
	if err != nil {
		return nil, err
	}
	if err := cluster.Wait(ctx, limit, "the API server's first answer", client.Answers); err != nil {
		return nil, err
	}
	if err := c.controllers(); err != nil {
		return nil, err
	}
	if err := c.agents(); err != nil {
		return nil, err
	}
	if err := cluster.Wait(ctx, limit, "the API server", client.Serves); err != nil {
		return nil, err
	}
	report.Step("API server")
	return client, nil
}

// waitReady waits for facts only: what a test is going to rely on has been
// seen to work once.
func waitReady(ctx context.Context, s spec.Spec, client *cluster.Client, imported <-chan error, report *Reporter) error {
	if err := client.Apply(ctx, cluster.System); err != nil {
		return err
	}
	// What changes the sample pods or creates them has to be there before they are.
	later := s.Mesh || s.Flux
	if !later {
		if err := applyWorkloads(ctx, s, client, report); err != nil {
			return err
		}
	}
	if err := cluster.Wait(ctx, limit, "a schedulable node", func(ctx context.Context) error { return client.Schedulable(ctx, s.Machine()) }); err != nil {
		return err
	}
	report.Step("node Ready")
	select {
	case err := <-imported:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.Flux {
		if err := installFlux(ctx, s, client); err != nil {
			return err
		}
	}
	answers := cluster.Reachable
	if s.Mesh {
		if err := installMesh(ctx, s, client, report); err != nil {
			return err
		}
		answers = cluster.Guarded
	}
	if later {
		if err := applyWorkloads(ctx, s, client, report); err != nil {
			return err
		}
	}
	if err := cluster.Wait(ctx, limit, "the sample pods", client.Deployed); err != nil {
		return err
	}
	report.Step("sample pods Ready")
	if err := cluster.Wait(ctx, limit, "DNS and the Service orders", answers); err != nil {
		return err
	}
	report.Step("DNS and Services answer")
	return nil
}

// applyWorkloads creates the sample pods and Services, or has Flux do it.
func applyWorkloads(ctx context.Context, s spec.Spec, client *cluster.Client, report *Reporter) error {
	if !s.Flux {
		return client.Apply(ctx, cluster.Workloads)
	}
	if err := client.Reconcile(ctx); err != nil {
		return err
	}
	if err := cluster.Wait(ctx, limit, "the GitOps controller", client.Reconciled); err != nil {
		return err
	}
	report.Step("workloads applied from the GitOps source")
	return nil
}

func etcdHealthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:2379/health", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd is not healthy: %s", res.Status)
	}
	return nil
}
