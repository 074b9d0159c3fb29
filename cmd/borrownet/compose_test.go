package main

import (
	"testing"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/demo"
)

// TestComposeRequest checks that compose has every flag whose default a session needs:
// it has fewer than up.
func TestComposeRequest(t *testing.T) {
	c := &composeRun{}
	c.addFlags(&cobra.Command{})
	c.target.pod, c.target.kube.Context = "api", demo.Context
	if _, err := c.target.request("borrownet compose"); err != nil {
		t.Error(err)
	}
}

func TestComposeParse(t *testing.T) {
	c := &composeRun{services: []string{"web=api", "worker=deploy/worker@orders"}}
	if err := c.parse([]string{"up", "--scale", "cache=2"}, "borrownet compose"); err != nil {
		t.Fatal(err)
	}
	if b := c.list[0]; b.name != "web" || b.ref != "api" || b.namespace != "" {
		t.Errorf("first %+v", b)
	}
	if b := c.list[1]; b.name != "worker" || b.ref != "deploy/worker" || b.namespace != "orders" {
		t.Errorf("second %+v", b)
	}
	for name, tt := range map[string]struct {
		services, args []string
	}{
		"none":     {nil, []string{"up"}},
		"no_ref":   {[]string{"web"}, []string{"up"}},
		"twice":    {[]string{"web=api", "web=other"}, []string{"up"}},
		"scaled":   {[]string{"web=api"}, []string{"up", "--scale=web=3"}},
		"scaled_2": {[]string{"web=api"}, []string{"up", "--scale", "web=3"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &composeRun{services: tt.services}
			if err := c.parse(tt.args, "borrownet compose"); err == nil {
				t.Error("no error")
			}
		})
	}
}
