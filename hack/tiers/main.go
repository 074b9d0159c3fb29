// Command tiers runs the project's test tiers in order and sums them up.
//
// It finds out by trying which tiers this machine can run, starts them one
// after the other, reads the events of `go test -json`, and prints a summary
// line per tier, every skip with its reason, and every promise of
// docs/proof.md that was left out. An interrupt ends the running tier and
// still prints the summary. The last line is "N passed, N failed, N skipped".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) int {
	if len(args) == 1 && args[0] == probeArg {
		return probeChild()
	}
	flags := flag.NewFlagSet("tiers", flag.ContinueOnError)
	flags.SetOutput(out)
	names := flags.String("tiers", "", "comma-separated tiers to run, in the usual order (default: all)")
	list := flags.Bool("list", false, "print the tiers and whether this machine can run them, then stop")
	verbose := flags.Bool("v", false, "print the output of passing tests too")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	chosen, err := choose(tiers(), *names)
	if err != nil {
		fmt.Fprintln(out, "error:", err)
		return 2
	}
	printMachine(out)
	r := &runner{
		out:     out,
		verbose: *verbose,
		require: parseRequire(os.Getenv("BORROWNET_REQUIRE")),
		logs:    logDir(),
		asked:   *names != "",
	}
	r.plan(ctx, chosen)
	if *list {
		return 0
	}
	r.runAll(ctx)
	return r.summary(ctx)
}

// logDir is where the raw events of each tier are kept.
func logDir() string {
	if dir := os.Getenv("BORROWNET_TEST_LOGS"); dir != "" {
		return dir
	}
	return filepath.Join(outDir(), "test-logs")
}

// outDir is where programs are built.
func outDir() string {
	if dir := os.Getenv("BORROWNET_OUT"); dir != "" {
		return dir
	}
	return "bin"
}

// choose returns the named tiers in their usual order; an empty list names all.
func choose(all []*tier, names string) ([]*tier, error) {
	if names == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(names, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var chosen []*tier
	var known []string
	for _, t := range all {
		known = append(known, t.name)
		if wanted[t.name] {
			chosen = append(chosen, t)
			delete(wanted, t.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("unknown tier %q; there are %s", name, strings.Join(known, ", "))
	}
	return chosen, nil
}

// require is what BORROWNET_REQUIRE demands to have been run, nothing skipped.
type require map[string]bool

func parseRequire(value string) require {
	r := require{}
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			r[name] = true
		}
	}
	return r
}

// demands reports whether a skip in the named tier is a failure.
func (r require) demands(tier string) bool { return r["all"] || r[tier] }
