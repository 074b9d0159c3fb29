package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// Answers reports, as nil, that the API server answers at all: enough for the
// components that retry on their own.
func (c *Client) Answers(ctx context.Context) error {
	err := c.get(ctx, "/livez/ping", nil)
	var status *statusError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

// Serves reports, as nil, that the API server is ready.
func (c *Client) Serves(ctx context.Context) error { return c.get(ctx, "/readyz", nil) }

// Schedulable reports, as nil, that pods can be made and will be placed on m: the
// node is ready and bears no taint, and namespaces get their ServiceAccount.
func (c *Client) Schedulable(ctx context.Context, m spec.Machine) error {
	var node struct {
		Spec   struct{ Taints []struct{ Key string } }
		Status struct{ Conditions []condition }
	}
	if err := c.get(ctx, "/api/v1/nodes/"+m.Name, &node); err != nil {
		return err
	}
	if !isTrue(node.Status.Conditions, "Ready") {
		return errors.New("node is not Ready")
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node has the taint %s", node.Spec.Taints[0].Key)
	}
	return c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
}

type condition struct{ Type, Status string }

func isTrue(cs []condition, kind string) bool {
	for _, c := range cs {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

// Deployed reports, as nil, that every replica of every Deployment is ready.
func (c *Client) Deployed(ctx context.Context) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ Replicas int }
			Status   struct{ ReadyReplicas int }
		}
	}
	if err := c.get(ctx, "/apis/apps/v1/deployments", &list); err != nil {
		return err
	}
	for _, d := range list.Items {
		if d.Status.ReadyReplicas < d.Spec.Replicas {
			return fmt.Errorf("deployment %s has %d of %d replicas ready", d.Metadata.Name, d.Status.ReadyReplicas, d.Spec.Replicas)
		}
	}
	return nil
}

// addresses asks the cluster's DNS for the sample Service. A question from before the
// proxy's rules is lost, so it is asked again soon, and then later and later.
func addresses(ctx context.Context) ([]net.IP, error) {
	for patience := 200 * time.Millisecond; ; patience *= 2 {
		asking, cancel := context.WithTimeout(ctx, patience)
		ips, err := lookUp(asking)
		late := asking.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return ips, err
		}
	}
}

func lookUp(ctx context.Context) ([]net.IP, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(spec.DNSIP, "53"))
	}}
	// The dot at the end keeps the search list of the host out of it.
	return r.LookupIP(ctx, "ip", "orders."+spec.Namespace+".svc.cluster.local.")
}

// bothAddresses are the sample Service's, one of each family.
func bothAddresses(ctx context.Context) ([]net.IP, error) {
	ips, err := addresses(ctx)
	if err == nil && len(ips) != 2 {
		err = fmt.Errorf("service orders has the addresses %v, want one of each family", ips)
	}
	return ips, err
}

// Reachable reports, as nil, that the sample Service answers at both its
// addresses, which means that the proxy has written its rules.
func Reachable(ctx context.Context) error {
	ips, err := bothAddresses(ctx)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, ip := range ips {
		if err := answersAs(ctx, client, "http://"+net.JoinHostPort(ip.String(), "80")+"/", "orders"); err != nil {
			return err
		}
	}
	return nil
}

// Guarded reports, as nil, that the sample Service resets who comes without the
// mesh's TLS at both its addresses: the proxy has written its rules and the
// sidecar has its own.
func Guarded(ctx context.Context) error {
	ips, err := bothAddresses(ctx)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, ip := range ips {
		url := "http://" + net.JoinHostPort(ip.String(), "80") + "/"
		switch err := answersAs(ctx, client, url, "orders"); {
		case err == nil:
			return fmt.Errorf("%s: answers without mutual TLS", url)
		case !errors.Is(err, syscall.ECONNRESET):
			return err
		}
	}
	return nil
}

func answersAs(ctx context.Context, client *http.Client, url, app string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var seen struct{ App string }
	if err := json.NewDecoder(res.Body).Decode(&seen); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if seen.App != app {
		return fmt.Errorf("%s: answered by %q, want %s", url, seen.App, app)
	}
	return nil
}

// Wait polls until check returns nil. A try has a second, and twice as long as the
// last one if that was too short; when the time is up the last error says what was
// missing.
func Wait(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for patience := time.Second; ; {
		try, done := context.WithTimeout(ctx, patience)
		err := check(try)
		if err == nil {
			done()
			return nil
		}
		if try.Err() != nil {
			patience *= 2
		}
		done()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", what, err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
