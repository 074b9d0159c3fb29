package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Round trips to the API server, and what the ratio to raw-spdy may lose by them.
var delays = []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond}

const (
	delayLoss   = 0.05
	delayedText = "× spdy as without a delay, less 0.05"
)

// undelayed returns the row without a delay that belongs to one with.
func undelayed(id string) (base string, delayed bool) {
	for _, d := range delays[1:] {
		if base, ok := strings.CutSuffix(id, "."+delayName(d)); ok {
			return base + "." + delayName(delays[0]), true
		}
	}
	return "", false
}

func delayName(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// collectDelays measures throughput and round trips with a longer way to the API server, for all subjects alike.
func (s samples) collectDelays(o options) error {
	for _, d := range delays {
		if err := s.collectDelay(o, d); err != nil {
			return fmt.Errorf("with %v: %w", d, err)
		}
	}
	return nil
}

func (s samples) collectDelay(o options, delay time.Duration) error {
	_, env, stop, err := openPath(delay)
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
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "delay of %v: round %d of %d\n", delay, round+1, o.rounds)
		inside := []string{"ledger:" + ports[0], "ledger:" + ports[1], "ledger:" + ports[2]}
		if err := s.addDelay(o, delay, "borrownet", []string{"borrownet", "run", "--", self}, inside); err != nil {
			return err
		}
		for _, raw := range raws {
			local, stop, err := portForward(env, raw.websockets, "deploy/ledger", ports...)
			if err != nil {
				return err
			}
			err = s.addDelay(o, delay, raw.subject, []string{self}, local)
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", raw.subject, err)
			}
		}
	}
	return nil
}

// addDelay gives one subject its turn: argv runs this program there, servers are those of the ledger.
func (s samples) addDelay(o options, delay time.Duration, subject string, argv, servers []string) error {
	for _, a := range []struct {
		name, row string
		port      int
	}{
		{"trips", "link.rtt", 0}, {"up", "link.up.1", 1}, {"down", "link.down.1", 2}, {"up16", "link.up.16", 1}, {"down16", "link.down.16", 2},
	} {
		out, err := output(append(argv[:len(argv):len(argv)], "act", a.name, servers[a.port], strconv.FormatFloat(o.seconds, 'g', -1, 64)))
		if err != nil {
			return err
		}
		units, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		if err != nil || units == 0 {
			return fmt.Errorf("%s did %q: %w", a.name, out, err)
		}
		value := units / o.seconds
		if a.name == "trips" {
			value = 1000 / value
		}
		s.add(a.row+"."+delayName(delay), subject, value)
	}
	return nil
}
