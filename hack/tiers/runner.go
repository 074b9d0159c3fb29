package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runner runs the chosen tiers and keeps what came of them.
type runner struct {
	out     io.Writer
	verbose bool
	require require
	logs    string
	asked   bool // the user named the tiers
	tiers   []*tier
}

// plan probes every tier and prints what will run and what will not.
func (r *runner) plan(ctx context.Context, chosen []*tier) {
	r.tiers = chosen
	for _, t := range r.tiers {
		t.results = results{}
		if t.probe != nil {
			t.leftOut = t.probe(ctx)
		}
		if t.leftOut == "" && t.missing != nil && !r.asked && !r.require.demands(t.name) {
			t.leftOut = t.missing(ctx)
		}
		if t.leftOut != "" {
			fmt.Fprintf(r.out, "  %-6s %s: left out: %s\n", t.name, t.about, t.leftOut)
			continue
		}
		fmt.Fprintf(r.out, "  %-6s %s: about %s, the first time %s (on 2 cores)\n", t.name, t.about, minutes(t.warm), minutes(t.cold))
	}
	fmt.Fprintln(r.out)
}

func minutes(m float64) string { return fmt.Sprintf("%g min", m) }

func (r *runner) runAll(ctx context.Context) {
	for _, t := range r.tiers {
		if t.leftOut != "" || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(r.out, "== %s: %s\n", t.name, t.about)
		start := time.Now()
		r.runTier(ctx, t)
		t.seconds = time.Since(start).Seconds()
		t.ran = ctx.Err() == nil
		fmt.Fprintf(r.out, "%s\n\n", t.line())
	}
}

// line is the tier's summary.
func (t *tier) line() string {
	return fmt.Sprintf("%-6s %4d passed, %d failed, %d skipped, %.1f s", t.name,
		t.results.count(passed), t.results.count(failed), t.results.count(skipped), t.seconds)
}

func (r *runner) runTier(ctx context.Context, t *tier) {
	unprepared := func(err error) {
		res := result{name: "prepare", outcome: failed, output: err.Error()}
		t.results.add(res)
		r.printTest(res)
	}
	log, err := r.openLog(t.name)
	if err != nil {
		unprepared(err)
		return
	}
	defer log.Close()
	steps, err := t.steps(ctx)
	if err != nil {
		unprepared(err)
		return
	}
	for _, s := range steps {
		if ctx.Err() != nil {
			return
		}
		if !r.runStep(ctx, t, s, log) && s.kind == prepare {
			return
		}
	}
}

func (r *runner) openLog(name string) (*os.File, error) {
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(r.logs, name+".json"))
}

// runStep runs one command and adds its results; it reports whether nothing failed.
func (r *runner) runStep(ctx context.Context, t *tier, s step, log io.Writer) bool {
	if s.skip != "" {
		res := result{name: s.name, outcome: skipped, output: s.skip}
		t.results.add(res)
		r.printTest(res)
		return true
	}
	into := t.results
	if s.place != "" {
		into = results{}
		s.env = append(s.env, "BORROWNET_REQUIRE=")
		defer t.results.addFrom(s.place, into)
	}
	c := newCollector(into)
	c.onEnd = r.printPackage
	var failures int
	c.onTest = func(res result) {
		if s.place != "" && res.outcome == skipped {
			return
		}
		if res.outcome == failed {
			failures++
		}
		r.printTest(res)
	}

	var err error
	var text strings.Builder
	switch s.kind {
	case prepare, report:
		err = execStep(ctx, s, r.out, r.out)
	case check:
		err = execStep(ctx, s, &text, &text)
	case goTest:
		err = r.stream(ctx, s, c, log, &text)
	case testBinary:
		err = r.streamBinary(ctx, s, c, log, &text)
	}
	if ctx.Err() != nil {
		return false // ended by us: what it printed is no result
	}
	if err != nil && failures == 0 {
		res := result{name: s.name, outcome: failed, output: text.String() + err.Error() + "\n"}
		t.results.add(res)
		r.printTest(res)
		return false
	}
	if err == nil && (s.kind == check || s.kind == report) {
		t.results.add(result{name: s.name, outcome: passed})
	}
	return err == nil
}

// stream reads the events a command prints.
func (r *runner) stream(ctx context.Context, s step, c *collector, log io.Writer, text io.Writer) error {
	pr, pw := io.Pipe()
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() { // ends when pw is closed
		readErr = c.read(io.TeeReader(pr, log))
		_, _ = io.Copy(io.Discard, pr) // a broken line must not block the command
	})
	err := execStep(ctx, s, pw, text)
	_ = pw.Close()
	reading.Wait()
	return errors.Join(err, readErr)
}

// streamBinary does the same for a compiled test, whose output test2json makes events of.
// The converter is no child of the command: it outlives a signal to its group.
func (r *runner) streamBinary(ctx context.Context, s step, c *collector, log io.Writer, text io.Writer) error {
	convert := exec.Command(goCmd(), "tool", "test2json", "-t", "-p", s.pkg)
	convert.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := convert.StdinPipe()
	if err != nil {
		return err
	}
	events, err := convert.StdoutPipe()
	if err != nil {
		return err
	}
	if err := convert.Start(); err != nil {
		return err
	}
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() { // ends when the converter does
		readErr = c.read(io.TeeReader(events, log))
		_, _ = io.Copy(io.Discard, events)
	})
	err = execStep(ctx, s, in, io.MultiWriter(text, r.out))
	_ = in.Close()
	reading.Wait()
	return errors.Join(err, readErr, convert.Wait())
}

// execStep runs the command in a process group of its own. When ctx ends, the group gets
// SIGTERM, and SIGKILL if it is still there after a while: a lab needs time to take down.
func execStep(ctx context.Context, s step, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(s.argv[:min(len(s.argv), 6)], " "), err)
	}
	return nil
}

func (r *runner) printTest(res result) {
	switch {
	case res.outcome == failed:
		fmt.Fprintf(r.out, "FAIL %s\n%s", res.name, indent(res.output))
	case res.outcome == skipped:
		fmt.Fprintf(r.out, "skip %s: %s\n", res.name, res.reason())
	case r.verbose:
		fmt.Fprintf(r.out, "pass %s\n%s", res.name, indent(res.output))
	}
}

func (r *runner) printPackage(e event) {
	if e.Action == "skip" || e.Package == "" {
		return // no test files
	}
	fmt.Fprintf(r.out, "%-4s %s %.1f s\n", map[bool]string{true: "FAIL", false: "ok"}[e.Action == "fail"], short(e.Package), e.Elapsed)
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("    " + line)
	}
	if s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}
