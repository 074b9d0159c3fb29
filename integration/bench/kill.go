package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"time"
)

// killEvery is how long a carrier has at least; up to twice as long.
const killEvery = 3 * time.Second

// collectKills cuts every connection to the API server again and again, at random times, under flows of all kinds.
func (s samples) collectKills(o options) error {
	p, env, stop, err := openPath(0)
	if err != nil {
		return err
	}
	defer stop()
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := outputIn(env, []string{"borrownet", "up", "-d", "-n", "shop", "--pod", "api"}); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("borrownet", "run", "--", self, "survive", "ledger:"+ports[0], "ledger:"+ports[1], "ledger:"+ports[2])
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	if _, err := io.ReadFull(out, make([]byte, len(pumping))); err != nil {
		return fmt.Errorf("flows do not begin: %w", err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	pause := func() { time.Sleep(killEvery + time.Duration(random.Int64N(int64(killEvery)))) }
	pause()
	var cuts []time.Time
	for range o.kills {
		cuts = append(cuts, time.Now())
		p.cut()
		pause()
	}
	input.Close()
	var found Survival
	if err := json.NewDecoder(out).Decode(&found); err != nil {
		return fmt.Errorf("what became of the flows: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	for _, text := range append(found.Lost, found.Wrong...) {
		fmt.Fprintln(os.Stderr, "kill:", text)
	}
	s.add("link.carrier-kill.flows-lost", "borrownet", float64(len(found.Lost)))
	s.add("link.carrier-kill.flows-wrong", "borrownet", float64(len(found.Wrong)))
	gaps := found.gaps(cuts)
	s.add("link.carrier-kill.gap.p50", "borrownet", gaps[len(gaps)/2])
	s.add("link.carrier-kill.gap.p99", "borrownet", gaps[len(gaps)*99/100])
	return nil
}

// gaps returns, sorted and in seconds, how long each flow that was not idle stood still after each cut.
func (f Survival) gaps(cuts []time.Time) []float64 {
	var gaps []float64
	for i, cut := range cuts {
		longest := make([]float64, f.Flows)
		for _, s := range f.Stalls {
			later := i+1 < len(cuts) && !s.Begin.Before(cuts[i+1])
			if !later && s.End.After(cut) {
				longest[s.Flow] = max(longest[s.Flow], s.End.Sub(maxTime(s.Begin, cut)).Seconds())
			}
		}
		for flow, gap := range longest {
			if !kinds[flow%len(kinds)].idle {
				gaps = append(gaps, gap)
			}
		}
	}
	slices.Sort(gaps)
	return gaps
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
