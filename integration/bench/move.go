package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// How long a program is without the network when its session goes on at another pod: from the end of its connection,
// on which nobody sends, to the next one that is made.

const (
	moverNamespace = "shop"
	mover          = "mover"
	over           = "over\n" // what outlive says of its connection
	// moveLimit bounds the wait for either.
	moveLimit = 2 * time.Minute
)

// outlive connects to the echo server at args[0], waits for the end of that connection, says so, connects again and
// prints how long that took, in seconds.
func outlive(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("outlive: want 1 argument, have %d", len(args))
	}
	addr, err := resolve(args[0])
	if err != nil {
		return fmt.Errorf("outlive: %w", err)
	}
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(moveLimit)); err != nil {
		return err
	}
	fmt.Print(pumping)
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection did not end in %v", moveLimit)
	}
	ended := time.Now()
	fmt.Print(over)
	for time.Since(ended) < moveLimit {
		again, err := net.DialTimeout("tcp", addr, moveLimit)
		if err == nil {
			fmt.Println(time.Since(ended).Seconds())
			return again.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("no new connection in %v", moveLimit)
}

// collectMove has a rollout replace the pod of a session, and somebody delete it.
func (s samples) collectMove(o options) error {
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := kubectlAdmin(fmt.Sprintf(manyPod, mover, moverNamespace), "apply", "-f", "-"); err != nil {
		return err
	}
	defer kubectlAdmin("", "-n", moverNamespace, "delete", "deployment/"+mover, "service/"+mover, "--wait=false")
	settled := func() error {
		_, err := kubectlAdmin("", "-n", moverNamespace, "rollout", "status", "deployment/"+mover, "--timeout=120s")
		return err
	}
	if err := settled(); err != nil {
		return err
	}
	if _, err := borrownet("up", "-d", "-n", moverNamespace, "--pod", "deploy/"+mover); err != nil {
		return err
	}
	for range o.rounds {
		for _, way := range []struct {
			row string
			act []string
		}{
			// The pod that takes its place is ready before the old one goes.
			{"move.rollout", []string{"rollout", "restart", "deployment/" + mover}},
			{"move.delete", []string{"delete", "pod", "-l", "app=" + mover, "--wait=false"}},
		} {
			told, gap, err := gapAfter(append([]string{"-n", moverNamespace}, way.act...))
			if err != nil {
				return fmt.Errorf("%s: %w", way.row, err)
			}
			s.add(way.row, "borrownet", gap)
			if way.row == "move.delete" {
				s.add("move.told", "borrownet", told)
			}
			if err := settled(); err != nil {
				return err
			}
		}
	}
	return nil
}

// gapAfter has kubectl do something, and returns after how long the connection of a program in the session has ended, and
// how long that program says that it was without one.
func gapAfter(argv []string) (told, gap float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.Command("borrownet", "run", "--", self, "outlive", "ledger.shop:"+ports[0])
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer cmd.Process.Kill()
	said := bufio.NewReader(out)
	if word, err := said.ReadString('\n'); err != nil || word != pumping {
		return 0, 0, fmt.Errorf("the program says %q: %w", word, err)
	}
	begun := time.Now()
	done := make(chan error, 1)
	go func() { // the connection may end first
		_, err := kubectlAdmin("", argv...)
		done <- err
	}()
	if word, err := said.ReadString('\n'); err != nil || word != over {
		return 0, 0, fmt.Errorf("the program says %q: %w", word, err)
	}
	told = time.Since(begun).Seconds()
	if err := <-done; err != nil {
		return 0, 0, err
	}
	word, err := said.ReadString('\n')
	if err != nil {
		return 0, 0, fmt.Errorf("the program ends: %w", err)
	}
	gap, err = strconv.ParseFloat(strings.TrimSpace(word), 64)
	if err != nil {
		return 0, 0, err
	}
	return told, gap, cmd.Wait()
}
