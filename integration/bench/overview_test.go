package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOverviewIsUpToDate: README and charts of docs/benchmarks are those of the results there.
func TestOverviewIsUpToDate(t *testing.T) {
	const dir = "../../docs/benchmarks"
	want, err := overviewOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s is not of the results beside it (%v): go run ./integration/bench overview docs/benchmarks", name, err)
		}
	}
}

func TestChart(t *testing.T) {
	half, one := 0.5, 1.0
	svg := chart(Results{Rows: []Row{
		{ID: "link.up.1", Subject: "borrownet", Value: 50, Unit: "MB/s", Ratio: &half},
		{ID: "link.up.1", Subject: "raw-spdy", Value: 100, Unit: "MB/s", Ratio: &one},
		{ID: "hook.socket.p50", Subject: "borrownet", Value: 19, Unit: "µs"},
	}})
	for _, want := range []string{"link.up.1", "50 MB/s", "100 MB/s"} {
		if !strings.Contains(svg, ">"+want+"<") {
			t.Errorf("the chart has no %q", want)
		}
	}
	if strings.Contains(svg, "hook.socket") {
		t.Error("the chart has a row that compares nothing")
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	if chart(Results{Rows: []Row{{ID: "dns.qps", Subject: "borrownet"}}}) != "" {
		t.Error("a chart of nothing")
	}
}
