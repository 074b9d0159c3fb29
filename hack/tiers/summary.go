package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// proofFile is the table of promises; each row names the tier that proves it.
const proofFile = "docs/proof.md"

// summary prints what came of every tier, what was left out and the final line.
// It returns the exit code: 0, 1 for failures, 130 when interrupted.
func (r *runner) summary(ctx context.Context) int {
	interrupted := ctx.Err() != nil
	if interrupted {
		fmt.Fprintln(r.out, "\ninterrupted: what had ended by then")
	}
	total := map[outcome]int{}
	missing := 0
	for _, t := range r.tiers {
		for _, o := range []outcome{passed, failed, skipped} {
			total[o] += t.results.count(o)
		}
		switch {
		case t.leftOut != "":
			fmt.Fprintf(r.out, "%-6s left out: %s\n", t.name, t.leftOut)
		case !t.ran && t.seconds > 0:
			fmt.Fprintf(r.out, "%s (interrupted)\n", t.line())
		case !t.ran:
			fmt.Fprintf(r.out, "%-6s not run\n", t.name)
		default:
			fmt.Fprintln(r.out, t.line())
		}
		// Whoever names a tier wants it run.
		if r.require.demands(t.name) && !t.ran || r.asked && t.leftOut != "" {
			missing++
		}
	}
	r.printSkips()
	r.printInPart()
	r.printLeftOut()
	demanded := 0
	for _, t := range r.tiers {
		if r.require.demands(t.name) {
			demanded += t.results.count(skipped)
		}
	}
	if missing+demanded > 0 {
		fmt.Fprintf(r.out, "required: %d tiers left out and %d tests skipped count as failures\n", missing, demanded)
		total[failed] += missing + demanded
		total[skipped] -= demanded
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", total[passed], total[failed], total[skipped])
	switch {
	case interrupted:
		return 130
	case total[failed] > 0:
		return 1
	}
	return 0
}

func (r *runner) printSkips() {
	for _, t := range r.tiers {
		for _, res := range t.results.named(failed) {
			fmt.Fprintf(r.out, "failed  %s: %s\n", t.name, res.name)
		}
	}
	for _, t := range r.tiers {
		for _, res := range t.results.named(skipped) {
			fmt.Fprintf(r.out, "skipped %s: %s: %s\n", t.name, res.name, res.reason())
		}
	}
}

// printLeftOut names every promise whose tier did not run and the command that proves it.
func (r *runner) printLeftOut() {
	for _, t := range r.tiers {
		if t.ran && t.leftOut == "" {
			continue
		}
		promises, err := promisesOf(t.name)
		if err != nil {
			fmt.Fprintf(r.out, "not proven here: the tier %s (%v); run: %s\n", t.name, err, t.prove)
			continue
		}
		if len(promises) == 0 {
			fmt.Fprintf(r.out, "not run: %s; run: %s\n", t.about, t.prove)
			continue
		}
		fmt.Fprintf(r.out, "not proven here, `%s` does:\n", t.prove)
		for _, p := range promises {
			fmt.Fprintf(r.out, "  - %s\n", p.text)
		}
	}
}

// printInPart names every promise of a tier that ran one of whose proofs was skipped.
func (r *runner) printInPart() {
	for _, t := range r.tiers {
		if !t.ran || t.leftOut != "" {
			continue
		}
		promises, err := promisesOf(t.name)
		if err != nil {
			continue // said where a tier was left out
		}
		head := fmt.Sprintf("not proven in full here, for lack of what skipped tests need; where it is there, `%s` does:\n", t.prove)
		for _, p := range promises {
			if why := p.skips(t.results.named(skipped)); len(why) > 0 {
				fmt.Fprintf(r.out, "%s  - %s (%s)\n", head, p.text, strings.Join(why, "; "))
				head = ""
			}
		}
	}
}

// promise is a row of docs/proof.md: "| promise | tier | proof |".
type promise struct {
	text   string
	proofs []string // "package/dir:TestName"
}

var (
	proofName   = regexp.MustCompile("`([^`:]+:(?:Test|Fuzz|Benchmark)[A-Za-z0-9_]*)")
	skippedName = regexp.MustCompile(`^([^.(]*)(?:\([^)]*\))?\.((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]*)`)
)

// skips returns why proofs of the promise were skipped, each reason once.
func (p promise) skips(list []result) []string {
	var why []string
	for _, res := range list {
		m := skippedName.FindStringSubmatch(res.name)
		if m != nil && slices.Contains(p.proofs, m[1]+":"+m[2]) && !slices.Contains(why, res.reason()) {
			why = append(why, res.reason())
		}
	}
	return why
}

// promisesOf returns the promises of docs/proof.md that the named tier alone proves.
func promisesOf(tier string) ([]promise, error) {
	f, err := os.Open(proofFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []promise
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		cells := strings.Split(strings.Trim(lines.Text(), "| "), "|")
		if len(cells) != 3 || strings.TrimSpace(cells[1]) != tier {
			continue
		}
		p := promise{text: strings.TrimSpace(cells[0])}
		for _, m := range proofName.FindAllStringSubmatch(cells[2], -1) {
			p.proofs = append(p.proofs, m[1])
		}
		list = append(list, p)
	}
	return list, lines.Err()
}
