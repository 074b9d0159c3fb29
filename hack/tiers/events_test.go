package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const stream = `
{"Action":"start","Package":"github.com/borrownet/borrownet/netstack"}
{"Action":"run","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial"}
{"Action":"run","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial/refused"}
{"Action":"output","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial/refused","Output":"    dial_test.go:7: got nil\n"}
{"Action":"fail","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial/refused","Elapsed":0}
{"Action":"run","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial/answered"}
{"Action":"pass","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial/answered","Elapsed":0}
{"Action":"fail","Package":"github.com/borrownet/borrownet/netstack","Test":"TestDial","Elapsed":0}
{"Action":"run","Package":"github.com/borrownet/borrownet/netstack","Test":"TestTUN"}
{"Action":"output","Package":"github.com/borrownet/borrownet/netstack","Test":"TestTUN","Output":"=== RUN   TestTUN\n"}
{"Action":"output","Package":"github.com/borrownet/borrownet/netstack","Test":"TestTUN","Output":"    tun_test.go:9: needs tun: permission denied\n"}
{"Action":"output","Package":"github.com/borrownet/borrownet/netstack","Test":"TestTUN","Output":"--- SKIP: TestTUN (0.00s)\n"}
{"Action":"skip","Package":"github.com/borrownet/borrownet/netstack","Test":"TestTUN","Elapsed":0}
{"Action":"fail","Package":"github.com/borrownet/borrownet/netstack","Elapsed":0.1}
{"ImportPath":"github.com/borrownet/borrownet/agent [github.com/borrownet/borrownet/agent.test]","Action":"build-output","Output":"agent.go:3: undefined: x\n"}
{"Action":"fail","Package":"github.com/borrownet/borrownet/agent","Elapsed":0,"FailedBuild":"github.com/borrownet/borrownet/agent [github.com/borrownet/borrownet/agent.test]"}
{"Action":"run","Package":"github.com/borrownet/borrownet/dnsproxy","Test":"TestCrash"}
{"Action":"output","Package":"github.com/borrownet/borrownet/dnsproxy","Test":"TestCrash","Output":"panic: boom\n"}
{"Action":"fail","Package":"github.com/borrownet/borrownet/dnsproxy","Elapsed":0.1}
{"Action":"run","Package":"github.com/borrownet/borrownet/hook","Test":"TestParent"}
{"Action":"run","Package":"github.com/borrownet/borrownet/hook","Test":"TestParent/child"}
{"Action":"pass","Package":"github.com/borrownet/borrownet/hook","Test":"TestParent/child","Elapsed":0}
{"Action":"fail","Package":"github.com/borrownet/borrownet/hook","Test":"TestParent","Elapsed":0}
{"Action":"fail","Package":"github.com/borrownet/borrownet/hook","Elapsed":0.1}
{"Action":"run","Package":"github.com/borrownet/borrownet/agent/wire","Test":"BenchmarkAll"}
{"Action":"run","Package":"github.com/borrownet/borrownet/agent/wire","Test":"BenchmarkAll/small"}
{"Action":"output","Package":"github.com/borrownet/borrownet/agent/wire","Test":"BenchmarkAll/small","Output":"BenchmarkAll/small-2  \t       1\t       191.0 ns/op\n"}
{"Action":"pass","Package":"github.com/borrownet/borrownet/agent/wire","Elapsed":0.1}
`

func TestCollector(t *testing.T) {
	got := results{}
	if err := newCollector(got).read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]outcome{}
	for name, r := range got {
		outcomes[name] = r.outcome
	}
	want := map[string]outcome{
		"netstack.TestDial/refused":     failed,
		"netstack.TestDial/answered":    passed,
		"netstack.TestTUN":              skipped,
		"agent":                         failed,
		"dnsproxy":                      failed,
		"hook.TestParent":               failed,
		"hook.TestParent/child":         passed,
		"agent/wire.BenchmarkAll/small": passed,
	}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{
		"netstack.TestDial/refused": "got nil",
		"agent":                     "undefined: x",
		"dnsproxy":                  "panic: boom",
	} {
		if !strings.Contains(got[name].output, text) {
			t.Errorf("%s: output %q does not contain %q", name, got[name].output, text)
		}
	}
	if got, want := got["netstack.TestTUN"].reason(), "needs tun: permission denied"; got != want {
		t.Errorf("reason = %q, want %q", got, want)
	}
}

func TestResultsOfTwoSettings(t *testing.T) {
	for _, tt := range []struct {
		name        string
		first, then outcome
		want        outcome
	}{
		{"skipped-then-passed", skipped, passed, passed},
		{"passed-then-skipped", passed, skipped, passed},
		{"passed-then-failed", passed, failed, failed},
		{"failed-then-passed", failed, passed, failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs := results{}
			rs.add(result{name: "x", outcome: tt.first})
			rs.add(result{name: "x", outcome: tt.then})
			if got := rs["x"].outcome; got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct{ name, output, want string }{
		{"place", "=== RUN   TestA\n    a_test.go:12: needs tun: permission denied\n--- SKIP: TestA (0.00s)\n", "needs tun: permission denied"},
		{"among-logs", "    time=01:10 level=DEBUG msg=up\n    a_test.go:12: needs netns: none\n    time=01:11 level=DEBUG msg=down\n", "needs netns: none"},
		{"two-lines", "    a_test.go:12: needs a hook: error: no\n        hint: none\n", "needs a hook: error: no hint: none"},
		{"no-place", "no privilege here\n", "no privilege here"},
		{"nothing", "=== RUN   TestA\n", "no reason given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (result{output: tt.output}).reason(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
