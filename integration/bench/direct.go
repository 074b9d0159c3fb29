package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/borrownet/borrownet/integration/labnode"
)

// The link over UDP to the pod's address, which the lab's laptop reaches only while it is let. It is measured as the link over
// port-forward is, beside the same raw subjects.

// collectDirect measures a session whose link is direct.
func (s samples) collectDirect(o options) (err error) {
	stop, err := flatten()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api", "--direct"); err != nil {
		return err
	}
	lost := 0
	for round := 0; round < o.rounds; {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		before, err := awaitDirect()
		if err != nil {
			return err
		}
		got, err := takeTurns(o.seconds)
		if err != nil {
			return err
		}
		if after, err := directRedials(); err != nil || after != before {
			if lost++; lost > directLosses {
				return errors.Join(fmt.Errorf("the direct path was lost %d times in round %d", lost, round+1), err)
			}
			fmt.Fprintln(os.Stderr, "the direct path was lost: once more")
			continue
		}
		for subject, m := range got {
			s.addLink("direct", subject, m)
		}
		round, lost = round+1, 0
	}
	return nil
}

// directLosses is how many times a round may have to be measured again, because the path was lost: the machine stood still.
const directLosses = 3

// awaitDirect waits until the session has found the path, for a minute. It returns directRedials.
func awaitDirect() (redials uint64, err error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		redials, err = directRedials()
		if err == nil || time.Now().After(end) {
			return redials, err
		}
	}
}

// directRedials is how often the session's carriers were dialled anew. It fails unless both are direct.
func directRedials() (uint64, error) {
	out, err := borrownet("status", "-o", "json")
	if err != nil {
		return 0, err
	}
	var sessions []struct {
		Carrier, BulkCarrier, NotDirect string
		Redials                         uint64
	}
	if err := json.Unmarshal(out, &sessions); err != nil {
		return 0, fmt.Errorf("status: %w", err)
	}
	if len(sessions) != 1 {
		return 0, fmt.Errorf("there are %d sessions", len(sessions))
	}
	st := sessions[0]
	if st.Carrier != "direct" || st.BulkCarrier != "direct" {
		return 0, fmt.Errorf("calls go over %q and bulk over %q: %s", st.Carrier, st.BulkCarrier, st.NotDirect)
	}
	return st.Redials, nil
}

// flatten lets the laptop reach the UDP ports of pods, until stop.
func flatten() (stop func() error, err error) {
	remove := func() error {
		_, err := kubectlAdmin("", "-n", "kube-system", "delete", "pod", "node", "--now", "--ignore-not-found")
		return err
	}
	if _, err := kubectlAdmin(labnode.Pod, "apply", "-f", "-"); err != nil {
		return nil, err
	}
	if _, err := kubectlAdmin("", "-n", "kube-system", "wait", "pod", "node", "--for=condition=Ready", "--timeout=180s"); err != nil {
		return nil, errors.Join(err, remove())
	}
	run := func(script string) error {
		_, err := kubectlAdmin(labnode.Path+script, "-n", "kube-system", "exec", "-i", "node", "--", "/bin/sh", "-eu")
		return err
	}
	if err := run(labnode.Flat); err != nil {
		return nil, errors.Join(err, run(labnode.Walled), remove())
	}
	return func() error { return errors.Join(run(labnode.Walled), remove()) }, nil
}
