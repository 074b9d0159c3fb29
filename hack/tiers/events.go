package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"sort"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// outcome of one test. The order is the one in which a later run of the same test
// in another setting replaces an earlier one: pass over skip, fail over both.
type outcome int

const (
	skipped outcome = iota
	passed
	failed
)

type result struct {
	name    string // package.Test, or the name of a step
	outcome outcome
	output  string
}

// results are what a tier's tests ended as, by name.
type results map[string]result

func (rs results) add(r result) {
	if old, ok := rs[r.name]; ok && old.outcome >= r.outcome {
		return
	}
	rs[r.name] = r
}

// addFrom adds what passed and failed in another place, under names of their own.
func (rs results) addFrom(place string, there results) {
	for _, r := range there {
		if r.outcome != skipped {
			r.name += " " + place
			rs.add(r)
		}
	}
}

// count returns how many results ended as o.
func (rs results) count(o outcome) int {
	n := 0
	for _, r := range rs {
		if r.outcome == o {
			n++
		}
	}
	return n
}

// named returns the results that ended as o, by name.
func (rs results) named(o outcome) []result {
	var list []result
	for _, r := range rs {
		if r.outcome == o {
			list = append(list, r)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// collector turns a stream of events into results. Only leaves are counted: a test
// that has subtests counts through them, unless it failed by itself.
type collector struct {
	into    results
	onEnd   func(event)  // a package ended; may be nil
	onTest  func(result) // a test ended; may be nil
	output  map[string]*strings.Builder
	parents map[string]bool
	broken  map[string]bool // packages with a failed test
	running map[string]bool // tests begun and not ended
}

func newCollector(into results) *collector {
	return &collector{into: into, output: map[string]*strings.Builder{}, parents: map[string]bool{}, broken: map[string]bool{}, running: map[string]bool{}}
}

// read consumes events until the stream ends. Lines that are no events are output of
// the go command and kept under the name of the package they precede.
func (c *collector) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for lines.Scan() {
		var e event
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if line[0] != '{' || json.Unmarshal(line, &e) != nil {
			c.text("", string(line)+"\n")
			continue
		}
		c.event(e)
	}
	return lines.Err()
}

func (c *collector) event(e event) {
	name := short(e.Package)
	if e.Test != "" {
		name += "." + e.Test
	}
	switch e.Action {
	case "run":
		c.running[name] = true
		for parent := e.Test; ; {
			i := strings.LastIndexByte(parent, '/')
			if i < 0 {
				break
			}
			parent = parent[:i]
			c.parents[short(e.Package)+"."+parent] = true
		}
	case "output":
		c.text(name, e.Output)
	case "build-output":
		c.text(short(e.ImportPath), e.Output)
	case "pass", "skip", "fail", "bench":
		delete(c.running, name)
		if e.Test == "" {
			c.packageEnd(e)
			return
		}
		c.testEnd(name, e)
	}
}

func (c *collector) testEnd(name string, e event) {
	r := result{name: name, outcome: passed, output: c.take(name)}
	switch e.Action {
	case "skip":
		r.outcome = skipped
	case "fail":
		r.outcome = failed
	}
	if c.parents[name] && (r.outcome != failed || c.childFailed(name)) {
		return
	}
	c.end(r, e.Package)
}

func (c *collector) end(r result, pkg string) {
	if r.outcome == failed {
		c.broken[short(pkg)] = true
	}
	c.into.add(r)
	if c.onTest != nil {
		c.onTest(r)
	}
}

func (c *collector) childFailed(name string) bool {
	for other, r := range c.into {
		if r.outcome == failed && strings.HasPrefix(other, name+"/") {
			return true
		}
	}
	return false
}

// packageEnd makes a package that failed without a failing test a failure of its own:
// it did not build, its TestMain failed, or it crashed.
func (c *collector) packageEnd(e event) {
	pkg := short(e.Package)
	// A benchmark that ran to its end has no event of its own, only a line with its figure.
	for name := range c.running {
		if b := c.output[name]; strings.HasPrefix(name, pkg+".Benchmark") && b != nil && strings.Contains(b.String(), " ns/op") {
			delete(c.running, name)
			c.end(result{name: name, outcome: passed, output: c.take(name)}, e.Package)
		}
	}
	if e.Action == "fail" && !c.broken[pkg] {
		output := c.take(pkg)
		for name := range c.running {
			if strings.HasPrefix(name, pkg+".") {
				output += c.take(name)
			}
		}
		if e.FailedBuild != "" {
			output = c.take(short(e.FailedBuild)) + output
		}
		c.end(result{name: pkg, outcome: failed, output: output + c.take("")}, e.Package)
	}
	if c.onEnd != nil {
		c.onEnd(e)
	}
}

func (c *collector) text(name, s string) {
	b := c.output[name]
	if b == nil {
		b = &strings.Builder{}
		c.output[name] = b
	}
	if b.Len() < 256<<10 {
		b.WriteString(s)
	}
}

func (c *collector) take(name string) string {
	b := c.output[name]
	if b == nil {
		return ""
	}
	delete(c.output, name)
	return b.String()
}

// short is a package's path inside the module, without "package variants" of go vet.
func short(pkg string) string {
	pkg, _, _ = strings.Cut(pkg, " ")
	return strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
}

const module = "github.com/borrownet/borrownet"

// reason is what a skipped test said: the last line that has a place in a file, which is
// what t.Skip prints whatever is logged before and after it, else all but the harness's own
// lines.
func (r result) reason() string {
	var said []string
	skip := ""
	for raw := range strings.Lines(r.output) {
		line := strings.TrimSpace(raw)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		// "file_test.go:12: needs a TUN" says the same without its place.
		if place, text, ok := strings.Cut(line, ": "); ok && strings.Contains(place, ".go:") && !strings.Contains(place, " ") {
			skip = text
		} else if skip != "" && strings.HasPrefix(raw, "        ") {
			skip += " " + line // more lines of the same text
		}
		said = append(said, line)
	}
	switch {
	case skip != "":
		return skip
	case len(said) == 0:
		return "no reason given"
	}
	return strings.Join(said, " ")
}
