package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Containers beside `borrownet run`: the same program, in the same session, in turn. What they reach is of interest as a
// part of what `run` reaches: both go through one tunnel.

// benchImage has nothing in it that is used: the program is this one.
const benchImage = "lab.local/caller:1"

// collectContainers needs an engine on the laptop, which the lab has if it was started with one.
func (s samples) collectContainers(o options) error {
	if os.Getenv("LAB_DOCKER") == "" {
		if o.group == "" {
			fmt.Fprintln(os.Stderr, "containers are left out: there is no engine; hack/bench.sh -run containers has one")
			return nil
		}
		return errors.New("there is no engine on the laptop: hack/bench.sh -run containers")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	image := filepath.Join(filepath.Dir(self), "caller-image.tar")
	if _, err := output([]string{"/usr/bin/docker", "load", "-i", image}); err != nil {
		return err
	}
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api", "--docker"); err != nil {
		return err
	}
	what := []string{"measure", "ledger:" + ports[0], "ledger:" + ports[1], "ledger:" + ports[2], strconv.FormatFloat(o.seconds, 'g', -1, 64)}
	run := append([]string{"borrownet", "run", "--", self}, what...)
	contained := append([]string{"/usr/bin/docker", "run", "--rm", "--network", "container:borrownet-api", "-v", self + ":/bench:ro", "--entrypoint", "/bench", benchImage}, what...)
	for round := range o.rounds {
		var got [2]Sample // of run, of a container
		for i := range got {
			which := (i + round) % 2 // who is first takes turns too
			if got[which], err = turn([][]string{run, contained}[which]); err != nil {
				return err
			}
		}
		for _, row := range []struct {
			id     string
			of     func(Sample) float64
			report string
		}{
			{"container.up.1", func(m Sample) float64 { return m.Up }, "container.up.1.speed"},
			{"container.down.1", func(m Sample) float64 { return m.Down }, "container.down.1.speed"},
			{"container.up.16", func(m Sample) float64 { return m.UpMany }, "container.up.16.speed"},
			{"container.down.16", func(m Sample) float64 { return m.DownMany }, "container.down.16.speed"},
			{"container.rtt", func(m Sample) float64 { return m.RTT }, "container.rtt.time"},
		} {
			s.add(row.id, "borrownet", 100*row.of(got[1])/row.of(got[0]))
			s.add(row.report, "borrownet", row.of(got[1]))
			s.add(row.report, "run", row.of(got[0]))
		}
	}
	return nil
}
