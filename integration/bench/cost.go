package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What borrownet's own processes take: the daemon on the laptop and the agent in the pod. Unlike times these figures
// hardly depend on what else the machine does. Everything else on the way is not borrownet's.

// spent is what processes have taken.
type spent struct {
	cpu   time.Duration
	waits uint64 // times that a thread waited: a hand-over between goroutines often is one
}

func (a spent) minus(b spent) spent { return spent{a.cpu - b.cpu, a.waits - b.waits} }

// activity does one thing for a while, with the server at addr, and returns how much.
type activity func(addr string, length time.Duration) (units float64, err error)

// activities by name.
var activities = map[string]activity{
	"trips":    trips,
	"connects": connects,
	"up":       total(upload),
	"down":     total(download),
	"up16":     total(func(a string, d time.Duration) (float64, error) { return several(upload, a, d) }),
	"down16":   total(func(a string, d time.Duration) (float64, error) { return several(download, a, d) }),
}

// total makes MB of MB/s.
func total(rate activity) activity {
	return func(addr string, length time.Duration) (float64, error) {
		r, err := rate(addr, length)
		return r * length.Seconds(), err
	}
}

// act runs one activity: its name at args[0], the server at args[1], the length in seconds at args[2]. It prints how
// much it did: round trips, connections or MB.
func act(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("act: want 3 arguments, have %d", len(args))
	}
	seconds, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return fmt.Errorf("act: seconds: %w", err)
	}
	addr, err := resolve(args[1])
	if err != nil {
		return fmt.Errorf("act: %w", err)
	}
	run := activities[args[0]]
	if run == nil {
		return fmt.Errorf("act: nothing is called %q", args[0])
	}
	units, err := run(addr, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return fmt.Errorf("act: %s: %w", args[0], err)
	}
	_, err = fmt.Println(units)
	return err
}

// trips counts round trips of one connection.
func trips(echo string, length time.Duration) (float64, error) {
	conn, err := dial(echo)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	n, buf := 0, make([]byte, 64)
	for start := time.Now(); time.Since(start) < length; n++ {
		if err := exchange(conn, buf); err != nil {
			return 0, err
		}
	}
	return float64(n), nil
}

// connects counts connections, of a round trip each.
func connects(echo string, length time.Duration) (float64, error) {
	n := 0
	for start := time.Now(); time.Since(start) < length; n++ {
		conn, err := dial(echo)
		if err != nil {
			return 0, err
		}
		err = exchange(conn, []byte{1})
		conn.Close()
		if err != nil {
			return 0, err
		}
	}
	return float64(n), nil
}

// collectCost measures what borrownet takes for each MB and each round trip.
func (s samples) collectCost(o options) error {
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	run := func(name, port string) (spent, float64, error) {
		before, err := spentNow()
		if err != nil {
			return spent{}, 0, err
		}
		out, err := borrownet("run", "--", self, "act", name, "ledger:"+port, strconv.FormatFloat(o.seconds, 'g', -1, 64))
		if err != nil {
			return spent{}, 0, err
		}
		after, err := spentNow()
		if err != nil {
			return spent{}, 0, err
		}
		units, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		if err != nil || units == 0 {
			return spent{}, 0, fmt.Errorf("%s did %q: %w", name, out, err)
		}
		return after.minus(before), units, nil
	}
	for range o.rounds {
		for _, a := range []struct{ name, port, row string }{
			{"trips", ports[0], "link.cpu.trip"}, {"connects", ports[0], "link.cpu.connect"},
			{"up", ports[1], "link.cpu"}, {"down", ports[2], "link.cpu"},
			{"up16", ports[1], "link.cpu.16"}, {"down16", ports[2], "link.cpu.16"},
		} {
			took, units, err := run(a.name, a.port)
			if err != nil {
				return err
			}
			s.add(a.row, "borrownet", milliseconds(took.cpu)/units)
			if a.name == "trips" {
				s.add("link.waits.trip", "borrownet", float64(took.waits)/units)
			}
		}
	}
	return nil
}

// spentNow is what daemon and agent have taken so far.
func spentNow() (spent, error) {
	daemon, err := daemonProcess()
	if err != nil {
		return spent{}, err
	}
	total, err := processSpent(daemon)
	if err != nil {
		return spent{}, err
	}
	out, err := borrownet("status", "-o", "json")
	if err != nil {
		return spent{}, err
	}
	var sessions []struct {
		Agent struct {
			Usage struct {
				CPU   time.Duration `json:"cpuNanos"`
				Waits uint64        `json:"waits"`
			} `json:"usage"`
		} `json:"agent"`
	}
	if err := json.Unmarshal(out, &sessions); err != nil {
		return spent{}, fmt.Errorf("status: %w", err)
	}
	if len(sessions) != 1 || sessions[0].Agent.Usage.CPU == 0 {
		return spent{}, errors.New("the agent does not tell what it takes")
	}
	u := sessions[0].Agent.Usage
	return spent{total.cpu + u.CPU, total.waits + u.Waits}, nil
}

// clockTick is USER_HZ, which is 100 wherever Linux runs (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// processSpent reads what a process has taken from its directory in /proc.
func processSpent(dir string) (spent, error) {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return spent{}, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before may be anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return spent{}, fmt.Errorf("read %s/stat: %q", dir, text)
	}
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			return spent{}, fmt.Errorf("read %s/stat: %w", dir, err)
		}
		ticks += n
	}
	waits, err := processWaits(dir)
	return spent{time.Duration(ticks) * clockTick, waits}, err
}

// processWaits sums the voluntary context switches of a process's threads.
func processWaits(dir string) (total uint64, err error) {
	threads, err := filepath.Glob(filepath.Join(dir, "task", "*", "status"))
	if err != nil {
		return 0, err
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			var n uint64
			if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n); err == nil {
				total += n
			}
		}
	}
	return total, nil
}
