// Command bench measures borrownet next to raw kubectl port-forward, in one
// run on the lab's laptop, and writes a table and a JSON file.
//
// Every subject is measured by the same program against the same server
// (integration/apps/ledger); subjects take turns, so that the machine's other
// work meets all of them. Ratios are to raw-spdy of the same row.
//
// Rows of a kind, "within noise", are of pairs: with and without borrownet in turn. See
// live.go and noise.go.
//
// It fails if it cannot measure, and if a row is not held that any machine holds: bytes that
// are wrong, or missing without being counted.
//
//	bench [-run GROUP] [-rounds N] [-seconds S] [-o results.json]
//	bench measure ECHO SINK SOURCE SECONDS   (one subject; run by bench itself)
//	bench act NAME SERVER SECONDS            (one thing that costs; run by bench itself)
//	bench survive ECHO SINK SOURCE           (flows whose carriers are cut; run by bench itself)
//	bench names SERVER                       (likewise, of DNS; - is resolv.conf's server)
//	bench pump SINK SOURCE RATE              (load on a session; run by bench itself)
//	bench outlive ECHO                       (a connection whose pod goes; run by bench itself)
//	bench page RESULTS.json PAGE.md          (puts the table into a page, between comments)
//	bench overview DIR                       (writes README.md and charts of all results there)
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Row is one line of the results.
type Row struct {
	ID      string   `json:"id"`
	Subject string   `json:"subject"`
	Value   float64  `json:"value"` // median
	Unit    string   `json:"unit"`
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	N       int      `json:"n"`
	Ratio   *float64 `json:"ratio,omitempty"`    // to raw-spdy
	RatioWS *float64 `json:"ratio_ws,omitempty"` // to raw-ws
	Low     *float64 `json:"low,omitempty"`      // 95 % interval of the median, where it is
	High    *float64 `json:"high,omitempty"`     // what the bar is about
	Bar     string   `json:"bar,omitempty"`
	Held    *bool    `json:"held,omitempty"`
	Verdict verdict  `json:"verdict,omitempty"`
}

// Results is the whole file.
type Results struct {
	Commit  string `json:"commit"`
	Machine string `json:"machine"`
	Date    string `json:"date"`
	Rows    []Row  `json:"rows"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "measure":
			return measure(args[1:])
		case "act":
			return act(args[1:])
		case "survive":
			return survive(args[1:])
		case "names":
			return measureNames(args[1:])
		case "pump":
			return pump(args[1:])
		case "outlive":
			return outlive(args[1:])
		case "overview":
			return overview(args[1:])
		case "page":
			return page(args[1:])
		}
	}
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.group, "run", "", "measure one group of rows only: "+groupNames())
	fs.IntVar(&o.rounds, "rounds", 5, "how often each subject takes its turn")
	fs.Float64Var(&o.seconds, "seconds", 3, "length of each bulk transfer")
	fs.IntVar(&o.pairs, "pairs", 10, "the fewest pairs of a row \"within noise\"")
	fs.IntVar(&o.maxPairs, "max-pairs", 60, "the most pairs, if fewer do not decide")
	fs.DurationVar(&o.window, "window", 5*time.Second, "length of each half of a pair")
	fs.IntVar(&o.kills, "kills", 100, "how often the connections to the API server are cut")
	fs.IntVar(&o.developers, "developers", 10, "how many developers the rows of many have")
	fs.IntVar(&o.sessions, "sessions", 20, "how many sessions each of them has")
	out := fs.String("o", "", "write the results as JSON to this file")
	commit := fs.String("commit", "unknown", "what is measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	s := samples{}
	if err := s.collect(o); err != nil {
		return err
	}
	res := Results{
		Commit:  *commit,
		Machine: machine(),
		Date:    time.Now().UTC().Format(time.DateOnly),
		Rows:    s.rows(),
	}
	if err := print(res); err != nil {
		return err
	}
	if *out != "" {
		text, err := json.MarshalIndent(res, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return res.defects()
}

// defects is an error that names the rows among defects that do not hold their bars.
func (res Results) defects() error {
	var errs []error
	for _, r := range res.Rows {
		if r.Held != nil && !*r.Held && slices.Contains(defects, r.ID) {
			errs = append(errs, fmt.Errorf("%s is %.3g %s, and must be %s", r.ID, r.Max, r.Unit, r.Bar))
		}
	}
	return errors.Join(errs...)
}

// machine describes the hardware that figures depend on.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	kernel := "unknown kernel"
	if b, err := exec.Command("uname", "-r").Output(); err == nil {
		kernel = "Linux " + strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%d × %s, %s, everything on one machine", runtime.NumCPU(), model, kernel)
}

// key identifies a row.
type key struct{ id, subject string }

// samples holds the values of every row as they were measured.
type samples map[key][]float64

func (s samples) add(id, subject string, values ...float64) {
	k := key{id, subject}
	s[k] = append(s[k], values...)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// rows sums the samples up, in the order of the bars.
func (s samples) rows() []Row {
	var rows []Row
	for _, b := range bars {
		for _, subject := range []string{"borrownet", "run", "idle", "raw-spdy", "raw-ws", "direct", "control"} {
			v := s[key{b.id, subject}]
			if len(v) == 0 {
				continue
			}
			r := Row{ID: b.id, Subject: subject, Unit: b.unit, Value: median(v), Min: slices.Min(v), Max: slices.Max(v), N: len(v)}
			r.Ratio, r.RatioWS = s.ratio(r, "raw-spdy"), s.ratio(r, "raw-ws")
			if subject == "borrownet" && b.held != nil {
				held := b.held(r)
				r.Bar, r.Held = b.text, &held
			}
			if base, delayed := undelayed(b.id); delayed && subject == "borrownet" && b.text != "" && r.Ratio != nil {
				held := *r.Ratio >= s.ratioOf(base)-delayLoss
				r.Bar, r.Held = b.text, &held
			}
			if _, ok := noise[b.id]; ok {
				low, high := interval(v)
				r.Low, r.High = &low, &high
				if subject == "borrownet" {
					r.Bar, r.Verdict = b.text, s.judge(b.id)
					held := r.Verdict == withinNoise || r.Verdict == noWorse
					r.Held = &held
				}
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// judge judges a row of paired differences.
func (s samples) judge(id string) verdict {
	return judge(s[key{id, "borrownet"}], s[key{id, "control"}], noise[id])
}

// ratioOf is the ratio of a row that has been measured to raw-spdy.
func (s samples) ratioOf(id string) float64 {
	return median(s[key{id, "borrownet"}]) / median(s[key{id, "raw-spdy"}])
}

func (s samples) ratio(r Row, to string) *float64 {
	base := s[key{r.ID, to}]
	if len(base) == 0 || median(base) == 0 {
		return nil
	}
	q := r.Value / median(base)
	return &q
}

func print(res Results) error {
	fmt.Printf("%s, %s, commit %s\n\n", res.Machine, res.Date, res.Commit)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\tsubject\tmedian\tmin\tmax\tunit\tn\t× spdy\t× ws\t95 % interval\tbar\theld")
	for _, r := range res.Rows {
		fmt.Fprintf(w, "%s\t%s\t%.3g\t%.3g\t%.3g\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n",
			r.ID, r.Subject, r.Value, r.Min, r.Max, r.Unit, r.N, times(r.Ratio), times(r.RatioWS), r.interval(), r.Bar, r.held())
	}
	return w.Flush()
}

// held says whether the row reaches its bar, if it has one.
func (r Row) held() string {
	if r.Held == nil {
		return ""
	}
	text := map[bool]string{true: "yes", false: "NO"}[*r.Held]
	if r.Verdict != "" {
		text += ", " + string(r.Verdict)
	}
	return text
}

func (r Row) interval() string {
	if r.Low == nil {
		return ""
	}
	return fmt.Sprintf("%.1f to %.1f", *r.Low, *r.High)
}

func times(q *float64) string {
	if q == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", *q)
}
