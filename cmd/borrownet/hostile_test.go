package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/doctor"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/forward"
	"github.com/borrownet/borrownet/cmd/internal/printable/printabletest"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/view"
	"github.com/borrownet/borrownet/netstack/replay"
)

// poisoned returns a T whose every text is a hostile one.
func poisoned[T any]() T {
	var v T
	printabletest.Poison(&v)
	return v
}

// hostileStatuses are sessions of which all is hostile but what borrownet itself decides.
func hostileStatuses() []session.Status {
	var list []session.Status
	for _, state := range []session.State{session.Connecting, session.Ready, session.Reattaching, session.Lost} {
		for _, rung := range hook.Rungs() {
			for _, path := range []session.Path{session.ThroughProxy, session.Direct, session.UnknownPath} {
				st := poisoned[session.Status]()
				st.State, st.Hook, st.Mesh.Path, st.Agent.Reused = state, rung, path, rung == hook.Relay
				list = append(list, st)
			}
		}
	}
	bare := poisoned[session.Status]() // what is not there is said in other words
	bare.State, bare.Hook, bare.Mesh.Identity, bare.Mesh.Proxy, bare.Carrier, bare.BulkCarrier = session.Ready, hook.Seccomp, "", "", kube.ProtocolAttach, ""
	return append(list, bare)
}

// hostilePrints are the ways in which commands print what a cluster says.
var hostilePrints = map[string]func(*ui) error{
	"status":     func(u *ui) error { return u.status(hostileStatuses()) },
	"table":      func(u *ui) error { return u.sessionTable(hostileStatuses()) },
	"explain":    func(u *ui) error { return u.explain(hostileStatuses()) },
	"ls":         func(u *ui) error { return u.offers(new(poisoned[kube.Offers]()), false, false) },
	"ls_wide":    func(u *ui) error { return u.offers(new(poisoned[kube.Offers]()), true, true) },
	"doctor":     func(u *ui) error { return u.checks([]doctor.Check{poisoned[doctor.Check]()}) },
	"dns":        func(u *ui) error { return u.explainName(poisoned[dnsproxy.Explanation]()) },
	"dry_run":    func(u *ui) error { return u.print(printabletest.Hostile) },
	"json":       func(u *ui) error { return u.encode("json", hostileStatuses()) },
	"json_ls":    func(u *ui) error { return u.encode("json", poisoned[kube.Offers]()) },
	"yaml":       func(u *ui) error { u.screen = true; return u.encode("yaml", hostileStatuses()) },
	"screen":     func(u *ui) error { u.screen = true; return u.raw(printabletest.Hostile) }, // cp, env
	"typed":      said(func(u *ui) { u.typed([]string{"cat", printabletest.Hostile}) }),
	"remark":     said(func(u *ui) { u.remark(printabletest.Hostile) }),
	"request":    said(func(u *ui) { u.request(poisoned[replay.Request]()) }),
	"difference": said(func(u *ui) { u.difference(poisoned[replay.Difference]()) }),
	"tail":       said(func(u *ui) { u.mirrored(poisoned[session.MirroredRequest](), "") }),
	"tail_json":  said(func(u *ui) { u.mirrored(poisoned[session.MirroredRequest](), "json") }),
	"down":       said(func(u *ui) { u.downed(poisoned[daemon.Downed]()) }),
	"error":      said(func(u *ui) { u.fail(new(poisoned[fault.Error]())) }),
	"forward": said(func(u *ui) {
		u.notForwarded(forward.Failure{Err: errors.New(printabletest.Hostile)})
		u.notForwarded(forward.Failure{Strange: true, Err: errors.New(printabletest.Hostile)})
	}),
	"up": said(func(u *ui) {
		for _, st := range hostileStatuses() {
			u.identity(st)
		}
	}),
	"moves": said(func(u *ui) {
		t := &teller{ui: u, session: printabletest.Hostile}
		for _, state := range []session.State{session.Reconnecting, session.Ready, session.Reattaching, session.Lost} {
			t.tell(daemon.StateEvent{State: state, Problem: new(poisoned[fault.Error]())})
		}
		t.tell(daemon.StateEvent{Moved: new(poisoned[session.Move]())})
		t.moved(session.Move{From: printabletest.Hostile, To: "x"})
	}),
	"log": said(func(u *ui) {
		log := slog.New(&uiHandler{ui: u}).With("session", printabletest.Hostile)
		log.Info(printabletest.Hostile, "err", errors.New(printabletest.Hostile))
		log.Warn(printabletest.Hostile, "err", errors.New(printabletest.Hostile), hintKey, printabletest.Hostile)
	}),
	"steps": said(func(u *ui) {
		for _, err := range []error{nil, errors.New(printabletest.Hostile)} {
			s := u.begin(printabletest.Hostile)
			s.width = func() int { return 1000 }
			s.step(printabletest.Hostile)
			s.done(err)
		}
	}),
	"stack": said(func(u *ui) {
		for _, live := range []bool{false, true} {
			b := newBoard(u, []string{printabletest.Hostile, printabletest.Hostile})
			b.live, b.width, b.high = live, 1000, 100
			for i, problem := range []*fault.Error{nil, new(poisoned[fault.Error]())} {
				b.begin(i)
				b.step(i, printabletest.Hostile)
				b.done(i, printabletest.Hostile, problem)
			}
			b.close()
		}
	}),
	"completion": func(u *ui) error {
		names, _ := nameList([]string{printabletest.Hostile}, nil)
		_, err := u.out.Write([]byte(strings.Join(names, "\n")))
		return err
	},
	"docker": said(func(u *ui) {
		a := &app{ui: u}
		words := a.volumeWords([]view.Bind{{Source: "/run/x/0", Target: "/ok"}, {Source: "/run/x/1", Target: "/" + printabletest.Hostile}, {Source: "/run/x/2", Target: "/x --privileged"}})
		_, _ = u.out.Write([]byte(strings.Join(words, " ")))
	}),
}

func said(f func(*ui)) func(*ui) error {
	return func(u *ui) error { f(u); return nil }
}

// TestPodsDoNotDriveTheTerminal: whatever a cluster calls its things, what commands print
// of them moves no cursor, and forges no line of a table.
func TestPodsDoNotDriveTheTerminal(t *testing.T) {
	tables := []string{"status", "table", "explain", "ls", "ls_wide", "request", "difference", "tail", "error"}
	for name, print := range hostilePrints {
		for _, mode := range progressModes {
			t.Run(name+"_"+mode, func(t *testing.T) {
				var out strings.Builder
				u := newUI(&out, &out)
				u.progress, u.verbose = progressMode(mode), true
				if err := print(u); err != nil {
					t.Fatal(err)
				}
				// What the steps themselves tell the terminal.
				text := strings.ReplaceAll(out.String(), "\r\x1b[K", "\n")
				printabletest.Inert(t, name, text)
				if slices.Contains(tables, name) && strings.Contains(text, "\nforged:") {
					t.Errorf("a line is forged in %q", text)
				}
				if name == "docker" && !strings.HasSuffix(text, "--volume /run/x/0:/ok:ro") {
					t.Errorf("words for docker: %q", text)
				}
			})
		}
	}
}

// TestRawIsExact: files and programs get every byte.
func TestRawIsExact(t *testing.T) {
	var out strings.Builder
	if err := newUI(&out, &out).raw(printabletest.Hostile); err != nil || out.String() != printabletest.Hostile {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// printers are the files that write to standard output or error, or to what stands for
// them: all others print through the functions that TestPodsDoNotDriveTheTerminal calls.
var printers = map[string]string{
	"ui.go": "prints", "ui_mirror.go": "prints", "progress.go": "prints", "board.go": "prints", "tail.go": "prints JSON",
	"app.go":        "hands them to the printer",
	"completion.go": "cobra's scripts",
	"daemon.go":     "the daemon's log, by package slog, which quotes",
	"demo.go":       "the demo's own programs, of its own world",
	"demo_story.go": "the demo's own programs",
	"inside.go":     "hands them to the person's program",
	"supervise.go":  "hands them to the person's program",
	"record.go":     "packets, for a file",
	"status.go":     "hands them to package dash, and asks whether they are a terminal",
}

func TestOnlyPrintersPrint(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		prints := false
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			on, _ := sel.X.(*ast.Ident)
			through, _ := sel.X.(*ast.SelectorExpr)
			switch sel.Sel.Name {
			case "Stdout", "Stderr":
				prints = prints || on != nil && on.Name == "os"
			case "Print", "Println", "Printf":
				prints = prints || on != nil && on.Name == "fmt"
			case "out", "err":
				prints = prints || on != nil && on.Name == "u" || through != nil && through.Sel.Name == "ui"
			}
			return true
		})
		if known := printers[path] != ""; prints && !known {
			t.Errorf("%s writes to a terminal by itself: use the functions of ui.go", path)
		} else if known && !prints {
			t.Errorf("%s does not print: it need not be listed", path)
		}
	}
}
