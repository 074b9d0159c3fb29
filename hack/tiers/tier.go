package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tier is one group of tests that needs the same things of the machine.
type tier struct {
	name  string
	about string
	// warm and cold are the minutes it takes on two cores, measured.
	warm, cold float64
	// prove is the command that runs the tier where it was left out.
	prove string
	// probe returns why the tier cannot run here, or "". It may be nil.
	probe func(ctx context.Context) string
	// missing returns what has to be built first and takes long, or "". A tier that nobody
	// asked for is left out then. It may be nil.
	missing func(ctx context.Context) string
	// steps returns what to run; it is called only when the probe found nothing.
	steps func(ctx context.Context) ([]step, error)

	leftOut string // the probe's answer
	results results
	ran     bool
	seconds float64
}

// step is one command of a tier.
type step struct {
	name string
	argv []string
	env  []string // added to our own
	kind kind
	pkg  string // of testBinary steps
	skip string // why it cannot be run, or ""; counts as one test that was skipped
	// place, if not empty, is where tests run once more that count elsewhere too: what they
	// have to skip there is no skip of the tier, and nothing is required of them.
	place string
}

// kind says what a step's standard output is.
type kind int

const (
	prepare    kind = iota // text shown as it comes; counts only when it fails
	check                  // text shown on failure; counts as one test
	report                 // text shown as it comes; counts as one test
	goTest                 // events of `go test -json`
	testBinary             // -test.v=test2json output of a compiled test
)

// testTimeout ends the tests of a package that hang: the slowest take a minute, and ten
// times that on a machine that is busy.
const testTimeout = "20m"

// tiers returns all tiers in the order they are run.
func tiers() []*tier {
	return []*tier{
		{
			name: "fast", about: "vet, unit tests, fuzz seeds, repository rules",
			warm: 3, cold: 4, prove: "make test-fast",
			steps: fastSteps,
		},
		{
			name: "race", about: "the packet path and the commands under the race detector; the client compiled for macOS",
			warm: 8, cold: 11, prove: "make test-race",
			probe: probeRace,
			steps: func(context.Context) ([]step, error) {
				return []step{
					// Not of the fast tier: the first time it compiles everything anew.
					{
						name: "the client for macOS", kind: check, env: []string{"CGO_ENABLED=0", "GOOS=darwin", "GOARCH=arm64"},
						argv: []string{goCmd(), "build", "-o", os.DevNull, "./cmd/borrownet"},
					},
					{
						name: "go test -race", kind: goTest, env: []string{"CGO_ENABLED=1"},
						argv: []string{goCmd(), "test", "-json", "-race", "-timeout", testTimeout, "./netstack/...", "./agent/...", "./dnsproxy/...", "./hook/...", "./cmd/..."},
					},
				}, nil
			},
		},
		{
			name: "hook", about: "user namespaces, TUN and seccomp, as an unprivileged user",
			warm: 2.5, cold: 4, prove: "make test-hook",
			probe: probeHook,
			// As root these tests run again as an unprivileged user, by themselves.
			steps: hookSteps,
		},
		{
			name: "lab", about: "end to end in a real single-node Kubernetes, from a laptop namespace",
			warm: 7, cold: 20, prove: "sudo make test-lab",
			probe:   probeLab,
			missing: missingLab,
			steps:   labSteps,
		},
		{
			name: "mesh", about: "end to end in a lab whose namespace is in a STRICT Istio mesh and kept by Flux",
			warm: 5, cold: 30, prove: "sudo make test-mesh",
			probe:   probeMesh,
			missing: missingMesh,
			steps:   meshSteps,
		},
		{
			name: "docker", about: "containers and compose files, beside a Docker engine in namespaces of its own",
			warm: 4, cold: 5, prove: "sudo make test-docker",
			probe:   probeDocker,
			missing: missingDocker,
			steps:   dockerSteps,
		},
		{
			name: "bench", about: "every row of the bench once, in the lab",
			warm: 2.5, cold: 2.5, prove: "sudo make bench",
			probe:   probeLab,
			missing: missingLab,
			steps:   benchSteps,
		},
	}
}

func goCmd() string {
	if g := os.Getenv("GO"); g != "" {
		return g
	}
	return "go"
}

// fastSteps tests every package but the hook's, which have a tier of their own.
func fastSteps(ctx context.Context) ([]step, error) {
	packages, err := goList(ctx, "./...")
	if err != nil {
		return nil, err
	}
	packages = slices.DeleteFunc(packages, func(p string) bool { return strings.HasPrefix(p, module+"/hook") })
	steps := []step{
		{name: "go vet", kind: check, argv: []string{goCmd(), "vet", "./..."}},
		{name: "go vet of the lab's tests", kind: check, argv: []string{goCmd(), "vet", "-tags=lab", "./integration"}},
		{name: "go vet of the containers' tests", kind: check, argv: []string{goCmd(), "vet", "-tags=docker", "./integration/containers"}},
		// The matrix is the hook tier's.
		{name: "go test", kind: goTest, argv: append([]string{goCmd(), "test", "-json", "-skip", matrixTest, "-timeout", testTimeout}, packages...)},
	}
	return append(steps, benchStep(packages)...), nil
}

// hookSteps tests the hook's packages, always anew: they depend on the machine.
func hookSteps(ctx context.Context) ([]step, error) {
	packages, err := goList(ctx, "./hook/...")
	if err != nil {
		return nil, err
	}
	test := step{
		name: "go test ./hook", kind: goTest,
		argv: []string{goCmd(), "test", "-json", "-count=1", "-timeout", testTimeout, "./hook/..."},
	}
	confined, err := containerSteps(ctx)
	if err != nil {
		return nil, err
	}
	// Some programs wait for the kernel to give a connection up: more at a time than cores.
	matrix := step{
		name: "conformance matrix", kind: goTest,
		argv: []string{goCmd(), "test", "-json", "-count=1", "-timeout", testTimeout, "-parallel", "6", "-run", matrixTest, "./integration"},
	}
	return slices.Concat([]step{test, matrix}, benchStep(packages), confined), nil
}

// matrixTest runs programs of every runtime on every rung of the hook.
const matrixTest = "^TestMatrix$"

// containerSteps run the tests of the hook and of the commands, and the demo, once more
// without any capability and under a filter like that of a container engine. The relay's
// tests do that by themselves.
func containerSteps(ctx context.Context) ([]step, error) {
	confine := filepath.Join(outDir(), "confine")
	if out, err := exec.CommandContext(ctx, goCmd(), "build", "-o", confine, "./hack/confine").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", confine, err, out)
	}
	why := ""
	if out, err := exec.CommandContext(ctx, confine, "-filter", goCmd(), "list", "./hack/confine").CombinedOutput(); err != nil {
		// Root without capabilities cannot read a checkout in somebody's home.
		why = fmt.Sprintf("cannot confine the tests: %v: %s", err, out)
	}
	test := []string{confine, "-filter", goCmd(), "test", "-json", "-count=1", "-timeout", testTimeout}
	const place = "in a container"
	return []step{
		{name: "tests in a container", kind: goTest, skip: why, place: place, argv: slices.Concat(test, []string{"-skip", "^TestRelay", "./hook/...", "./cmd/..."})},
		{name: "demo in a container", kind: goTest, skip: why, place: place, argv: slices.Concat(test, []string{"-run", "^TestDemo$", "./integration"})},
	}, nil
}

// benchStep runs each benchmark once, so that none rots; figures are for `go test -bench`.
func benchStep(packages []string) []step {
	benched := withBenchmarks(packages)
	if len(benched) == 0 {
		return nil
	}
	run := []string{goCmd(), "test", "-json", "-run", "^$", "-bench", ".", "-benchtime", "1x", "-timeout", testTimeout}
	return []step{{name: "go test -bench", kind: goTest, argv: append(run, benched...)}}
}

// withBenchmarks returns the packages whose tests hold a benchmark.
func withBenchmarks(packages []string) []string {
	var list []string
	for _, p := range packages {
		files, _ := filepath.Glob(filepath.Join(".", strings.TrimPrefix(p, module), "*_test.go"))
		for _, name := range files {
			if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "\nfunc Benchmark") {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

func goList(ctx context.Context, pattern string) ([]string, error) {
	out, err := exec.CommandContext(ctx, goCmd(), "list", pattern).Output()
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		err = fmt.Errorf("go list %s: %w: %s", pattern, err, exit.Stderr)
	}
	return strings.Fields(string(out)), err
}
