package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

const demoIntro = `borrownet on a cluster that lives in this process, so that there is something to borrow

real:  all of borrownet. The agent, the link and WireGuard, the client's network stack,
       DNS, the hook: what runs here is what runs against your cluster
not:   the cluster. The pod api, the Services orders and ledger and the cluster's DNS are
       network stacks in this process; a unix socket stands in for the API server;
       there is no mesh, and nothing says how fast borrownet is on a network`

// A scene is a command of the story and what it has to show.
type scene struct {
	about string
	argv  []string
	fails bool           // its exit code must not be 0
	shows *regexp.Regexp // in what it prints
	what  string         // what shows means, for who does not see it
}

func typed(line string) []string { return strings.Fields(line) }

// story is what the demo shows. With keep it ends before the session does. up are
// more words for the command that borrows.
func story(keep bool, up ...string) []scene {
	fromPod := regexp.MustCompile(`"remote": "192\.0\.2\.10:\d+"`)
	scenes := []scene{
		{
			about: "without borrownet: this machine knows no such Service", fails: true,
			argv:  typed("borrownet demo call http://orders"),
			shows: regexp.MustCompile(`error: call http://orders: `), what: "that nothing here reaches http://orders",
		},
		{
			about: "borrow pod api",
			argv:  append(typed("borrownet up --pod api --context demo -d"), up...),
			shows: regexp.MustCompile(`session api is ready`), what: "a session",
		},
		{
			about: "the same call as the pod: orders saw the pod's address, 192.0.2.10",
			argv:  typed("borrownet run -- borrownet demo call http://orders"),
			shows: fromPod, what: "that orders saw the pod's address",
		},
		{
			about: "names are the cluster's, with the pod's search list",
			argv:  typed("borrownet run -- borrownet demo call dns://ledger.shop"),
			shows: regexp.MustCompile(`(?m)^198\.51\.100\.22$`), what: "the address of Service ledger",
		},
		{
			about: "a closed port is refused, at connect", fails: true,
			argv:  typed("borrownet run -- borrownet demo call tcp://ledger:81"),
			shows: regexp.MustCompile(`connection refused`), what: "that the connection was refused",
		},
		{
			about: "UDP; ledger answers with who asked",
			argv:  typed("borrownet run -- borrownet demo call udp://ledger:11 hello"),
			shows: regexp.MustCompile(`hello from (192\.0\.2\.10|\[2001:db8:0:1::10\]):\d+`), what: "that ledger saw the pod's address",
		},
		{
			about: "what there is, and that it works right now",
			argv:  typed("borrownet status"),
			shows: regexp.MustCompile(`(?m)^round trip +[\d.]+(µs|ms|s)$`), what: "a round trip to the agent",
		},
	}
	if keep {
		return scenes
	}
	return append(scenes,
		scene{
			about: "give it back, and end the agent too",
			argv:  typed("borrownet down --stop-agent"),
			shows: regexp.MustCompile(`session api is down`), what: "the session's end",
		},
		scene{
			about: "it is gone", fails: true,
			argv:  typed("borrownet status"),
			shows: regexp.MustCompile(`none is up`), what: "that no session is left",
		},
	)
}

// tell plays the scenes and stops at the first that does not show what it must.
func (a *app) tell(ctx context.Context, st *stage, scenes []scene) error {
	for _, s := range scenes {
		a.ui.remark(s.about)
		a.ui.typed(s.argv)
		said, code, err := st.play(ctx, s.argv, a.ui.out)
		if ctx.Err() != nil {
			return fault.From(context.Canceled)
		}
		if err != nil {
			return &fault.Error{Code: fault.Laptop, Op: "run", Object: strings.Join(s.argv, " "), Reason: err.Error(), Err: err}
		}
		if err := s.judge(said, code); err != nil {
			return err
		}
	}
	return nil
}

// judge reports what a scene has not shown.
func (s *scene) judge(said string, code int) error {
	if s.fails == (code != 0) && s.shows.MatchString(said) {
		return nil
	}
	f := &fault.Error{
		Code: fault.General, Op: "demo", Object: strings.Join(s.argv, " "),
		Reason: fmt.Sprintf("it did not show %s; its exit code is %d", s.what, code), Hint: "borrownet demo -v",
	}
	if !s.fails && code >= int(fault.Cluster) && code < exitOurs {
		f.Code = fault.Code(code) // the command has explained itself
	}
	return f
}
