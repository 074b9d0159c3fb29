package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script is a tier whose steps are shell commands.
func script(name string, steps ...step) *tier {
	for i := range steps {
		steps[i].argv = []string{"sh", "-c", steps[i].argv[0]}
		if steps[i].name == "" {
			steps[i].name = "step"
		}
	}
	return &tier{name: name, about: name, prove: "make " + name, steps: func(context.Context) ([]step, error) { return steps, nil }}
}

func events(lines ...string) string { return "printf '%s\\n' '" + strings.Join(lines, "' '") + "'" }

const (
	passEvent = `{"Action":"pass","Package":"p","Test":"TestA"}`
	skipEvent = `{"Action":"skip","Package":"p","Test":"TestB"}`
	failEvent = `{"Action":"fail","Package":"p","Test":"TestC"}`
)

func runTiers(ctx context.Context, t *testing.T, required string, tiers ...*tier) (code int, lines []string) {
	t.Helper()
	var out bytes.Buffer
	r := &runner{out: &out, require: parseRequire(required), logs: t.TempDir()}
	r.plan(ctx, tiers)
	r.runAll(ctx)
	code = r.summary(ctx)
	return code, strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestRunner(t *testing.T) {
	leftOut := func() *tier {
		tr := script("lab")
		tr.probe = func(context.Context) string { return "no mounts here" }
		return tr
	}
	unbuilt := func() *tier {
		tr := script("lab", step{kind: check, argv: []string{"true"}})
		tr.missing = func(context.Context) string { return "not compiled yet" }
		return tr
	}
	for _, tt := range []struct {
		name     string
		required string
		tiers    []*tier
		code     int
		last     string
		contains string
	}{
		{"pass-and-skip", "", []*tier{script("fast", step{kind: goTest, argv: []string{events(passEvent, skipEvent)}})}, 0, "1 passed, 0 failed, 1 skipped", "skip p.TestB"},
		{"skip-required", "all", []*tier{script("fast", step{kind: goTest, argv: []string{events(passEvent, skipEvent)}})}, 1, "1 passed, 1 failed, 0 skipped", "required: 0 tiers left out and 1 tests skipped"},
		{"skip-required-elsewhere", "lab", []*tier{script("fast", step{kind: goTest, argv: []string{events(passEvent, skipEvent)}})}, 0, "1 passed, 0 failed, 1 skipped", ""},
		{"failure-counts-once", "", []*tier{script("fast", step{kind: goTest, argv: []string{events(passEvent, failEvent) + "; exit 1"}})}, 1, "1 passed, 1 failed, 0 skipped", "FAIL p.TestC"},
		{"command-fails-without-a-test", "", []*tier{script("fast", step{kind: goTest, argv: []string{"echo no such package >&2; exit 1"}})}, 1, "0 passed, 1 failed, 0 skipped", "no such package"},
		{"not-built-and-not-asked", "", []*tier{unbuilt()}, 0, "0 passed, 0 failed, 0 skipped", "left out: not compiled yet"},
		{"not-built-but-required", "lab", []*tier{unbuilt()}, 0, "1 passed, 0 failed, 0 skipped", ""},
		{"check", "", []*tier{script("fast", step{kind: check, argv: []string{"true"}})}, 0, "1 passed, 0 failed, 0 skipped", ""},
		{"prepare-fails-ends-the-tier", "", []*tier{script("fast", step{kind: prepare, argv: []string{"exit 3"}}, step{kind: check, argv: []string{"true"}})}, 1, "0 passed, 1 failed, 0 skipped", "exit status 3"},
		{"skips-elsewhere", "all", []*tier{script("hook",
			step{kind: goTest, argv: []string{events(passEvent, skipEvent, failEvent) + "; [ -z \"$BORROWNET_REQUIRE\" ]"}, place: "in a container"})}, 1,
			"1 passed, 1 failed, 0 skipped", "failed  hook: p.TestC in a container"},
		{"cannot-prepare", "", []*tier{{name: "fast", steps: func(context.Context) ([]step, error) { return nil, errors.New("go list: no module") }}}, 1,
			"0 passed, 1 failed, 0 skipped", "FAIL prepare\n    go list: no module\n"},
		{"step-skipped", "", []*tier{script("hook", step{kind: check, skip: "no privilege", argv: []string{"false"}})}, 0, "0 passed, 0 failed, 1 skipped", "skipped hook: step: no privilege"},
		{"left-out", "", []*tier{leftOut()}, 0, "0 passed, 0 failed, 0 skipped", "left out: no mounts here"},
		{"left-out-required", "all", []*tier{leftOut()}, 1, "0 passed, 1 failed, 0 skipped", "left out: no mounts here"},
		{"compiled-test", "", []*tier{script("hook", step{kind: testBinary, pkg: "p", argv: []string{`printf '=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n'`}})}, 0, "1 passed, 0 failed, 0 skipped", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, lines := runTiers(t.Context(), t, tt.required, tt.tiers...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if got := lines[len(lines)-1]; got != tt.last {
				t.Errorf("last line %q, want %q", got, tt.last)
			}
			if !strings.Contains(strings.Join(lines, "\n"), tt.contains) {
				t.Errorf("output has no %q:\n%s", tt.contains, strings.Join(lines, "\n"))
			}
		})
	}
}

func TestInterruptedRunPrintsItsSummary(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first := script("fast", step{kind: goTest, argv: []string{events(passEvent)}})
	begun := filepath.Join(t.TempDir(), "begun")
	second := script("hook", step{kind: goTest, argv: []string{"touch " + begun + "; exec sleep 60"}})
	go func() { // ends with the test
		for t.Context().Err() == nil {
			if _, err := os.Stat(begun); err == nil {
				cancel()
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	start := time.Now()
	code, lines := runTiers(ctx, t, "", first, second)
	if code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if got, want := lines[len(lines)-1], "1 passed, 0 failed, 0 skipped"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
	if took := time.Since(start); took > 50*time.Second {
		t.Errorf("ended after %v", took)
	}
}

func TestChoose(t *testing.T) {
	got, err := choose(tiers(), "lab, fast")
	if err != nil || len(got) != 2 || got[0].name != "fast" || got[1].name != "lab" {
		t.Errorf("choose = %v, %v", got, err)
	}
	if _, err := choose(tiers(), "fats"); err == nil || !strings.Contains(err.Error(), "fats") {
		t.Errorf("unknown tier: %v", err)
	}
}

// TestSkippedProofs: a promise whose test was skipped is named, with the reason, and
// one whose test has passed is not.
func TestSkippedProofs(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("docs", 0o755); err != nil {
		t.Fatal(err)
	}
	rows := "| promise | tier | proof |\n| it skips | fast | `cmd/p:TestB/some_case`, `cmd/p:TestA` |\n| it holds | fast | `cmd/p:TestA` |\n"
	if err := os.WriteFile(proofFile, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	const p = module + "/cmd/p"
	_, lines := runTiers(t.Context(), t, "", script("fast", step{kind: goTest, argv: []string{events(
		`{"Action":"pass","Package":"`+p+`","Test":"TestA"}`,
		`{"Action":"output","Package":"`+p+`","Test":"TestB/root","Output":"    b_test.go:1: needs musl: none here\n"}`,
		`{"Action":"skip","Package":"`+p+`","Test":"TestB/root"}`)}}))
	out := strings.Join(lines, "\n")
	want := "not proven in full here, for lack of what skipped tests need; where it is there, `make fast` does:\n  - it skips (needs musl: none here)\n"
	if !strings.Contains(out, want) || strings.Contains(out, "it holds") {
		t.Errorf("got\n%s", out)
	}
}
