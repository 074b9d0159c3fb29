package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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
	dir  string   // "" is the root of the checkout
	env  []string // added to our own
	uid  uint32   // 0 is whoever runs us
	kind kind
	pkg  string // of testBinary steps
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

// unprivileged is the user that tests run as when root starts them.
const unprivileged = 65534

// tiers returns all tiers in the order they are run.
func tiers() []*tier {
	return []*tier{
		{
			name: "fast", about: "vet, unit tests, fuzz seeds, repository rules",
			warm: 1, cold: 5, prove: "make test-fast",
			steps: fastSteps,
		},
		{
			name: "race", about: "the packet path and the commands under the race detector",
			warm: 1.5, cold: 6, prove: "make test-race",
			probe: probeRace,
			steps: func(context.Context) ([]step, error) {
				return []step{{
					name: "go test -race", kind: goTest, env: []string{"CGO_ENABLED=1"},
					argv: []string{goCmd(), "test", "-json", "-race", "-timeout", "10m", "./netstack/...", "./agent/...", "./dnsproxy/...", "./hook/...", "./cmd/..."},
				}}, nil
			},
		},
		{
			name: "hook", about: "user namespaces, TUN and seccomp, as an unprivileged user",
			warm: 0.5, cold: 1, prove: "make test-hook",
			probe: probeHook,
			steps: hookSteps,
		},
		{
			name: "lab", about: "end to end in a real single-node Kubernetes, from a laptop namespace",
			warm: 5, cold: 18, prove: "sudo make test-lab",
			probe: probeLab,
			steps: labSteps,
		},
		{
			name: "bench", about: "every row of the bench once, in the lab",
			warm: 3, cold: 3, prove: "sudo make bench",
			probe: probeLab,
			steps: benchSteps,
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
	argv := []string{goCmd(), "test", "-json", "-timeout", "10m"}
	for _, p := range packages {
		if !strings.Contains(p, "/hook") {
			argv = append(argv, p)
		}
	}
	steps := []step{
		{name: "go vet", kind: check, argv: []string{goCmd(), "vet", "./..."}},
		{name: "go test", kind: goTest, argv: argv},
	}
	if benched := withBenchmarks(packages); len(benched) > 0 {
		// Once, so that none rots; figures are for `go test -bench`.
		run := []string{goCmd(), "test", "-json", "-run", "^$", "-bench", ".", "-benchtime", "1x", "-timeout", "5m"}
		steps = append(steps, step{name: "go test -bench", kind: goTest, argv: append(run, benched...)})
	}
	return steps, nil
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

// hookSteps runs the hook's tests as we are and, where root runs us, once more as an
// unprivileged user: what one of the two may not do the other shows.
func hookSteps(ctx context.Context) ([]step, error) {
	steps := []step{{
		name: "go test ./hook", kind: goTest,
		argv: []string{goCmd(), "test", "-json", "-count=1", "-timeout", "10m", "./hook/..."},
	}}
	if os.Geteuid() != 0 {
		return steps, nil
	}
	packages, err := goList(ctx, "./hook/...")
	if err != nil {
		return nil, err
	}
	// Not in the checkout: its parents may be closed to the other user.
	dir, err := os.MkdirTemp("", "borrownet-hook-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, p := range packages {
		_, rel, _ := strings.Cut(p, "/hook")
		rel = "hook" + rel
		home := filepath.Join(dir, strings.ReplaceAll(rel, "/", "-"))
		if err := os.Mkdir(home, 0o755); err != nil {
			return nil, err
		}
		if err := copyTestdata(rel, home); err != nil {
			return nil, err
		}
		if err := os.Chown(home, unprivileged, unprivileged); err != nil {
			return nil, err
		}
		binary := filepath.Join(home, "package.test")
		out, err := exec.CommandContext(ctx, goCmd(), "test", "-c", "-o", binary, p).CombinedOutput()
		if err != nil {
			steps = append(steps, step{name: "build " + rel, kind: check, argv: []string{"sh", "-c", "printf '%s' \"$0\"; exit 1", string(out)}})
			continue
		}
		if _, err := os.Stat(binary); err != nil {
			continue // no test files
		}
		steps = append(steps, step{
			name: rel + " as user nobody", kind: testBinary, pkg: p, uid: unprivileged, dir: home,
			argv: []string{binary, "-test.v=test2json", "-test.timeout=10m"},
			env:  []string{"HOME=" + home, "USER=nobody", "XDG_RUNTIME_DIR="},
		})
	}
	steps = append(steps, step{name: "remove " + dir, kind: prepare, argv: []string{"rm", "-rf", dir}})
	return steps, nil
}

func copyTestdata(pkgDir, to string) error {
	from := filepath.Join(pkgDir, "testdata")
	if _, err := os.Stat(from); err != nil {
		return nil
	}
	return os.CopyFS(filepath.Join(to, "testdata"), os.DirFS(from))
}

func goList(ctx context.Context, pattern string) ([]string, error) {
	out, err := exec.CommandContext(ctx, goCmd(), "list", pattern).Output()
	return strings.Fields(string(out)), err
}
