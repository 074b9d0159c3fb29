package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/forward"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// forwardFlags are what forward is to serve.
type forwardFlags struct{ socks, http []string }

func (a *app) forward() *cobra.Command {
	var (
		target targetFlags
		serve  forwardFlags
	)
	cmd := &cobra.Command{
		Use:   "forward [--session NAME | --pod TARGET] [[ADDRESS:]PORT:HOST:PORT...] [--socks5 PORT] [--http-proxy PORT]",
		Short: "let browsers and other programs that cannot be wrapped use a session", Long: forwardLong, Example: forwardExample,
		ValidArgsFunction: nothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := serve.config(args, cmd.CommandPath())
			if err != nil {
				return err
			}
			return a.serveForwards(target, cfg, cmd.CommandPath())
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&serve.socks, "socks5", nil, "`PORT` on which to serve a SOCKS5 proxy; 0 = any that is free")
	f.StringSliceVar(&serve.http, "http-proxy", nil, "`PORT` on which to serve an HTTP proxy; 0 = any that is free")
	target.add(cmd)
	a.addProgress(cmd)
	a.completeSessions(cmd)
	return cmd
}

// config checks what is to be served.
func (s *forwardFlags) config(args []string, name string) (forward.Config, error) {
	var cfg forward.Config
	if len(args)+len(s.socks)+len(s.http) == 0 {
		return cfg, usage("nothing is to be forwarded", name+" 5432:db:5432, or "+name+" --socks5 1080")
	}
	for _, text := range args {
		p, err := forward.ParsePort(text)
		if err != nil {
			return cfg, usage(err.Error(), name+" 5432:db:5432")
		}
		cfg.Ports = append(cfg.Ports, p)
	}
	for _, proxy := range []struct {
		flag   string
		values []string
		to     *[]netip.AddrPort
	}{{"--socks5", s.socks, &cfg.SOCKS}, {"--http-proxy", s.http, &cfg.HTTP}} {
		for _, text := range proxy.values {
			at, err := forward.ParseListen(text)
			if err != nil {
				return cfg, usage(proxy.flag+" "+err.Error(), name+" "+proxy.flag+" 1080")
			}
			*proxy.to = append(*proxy.to, at)
		}
	}
	return cfg, nil
}

// serveForwards serves until it is interrupted.
func (a *app) serveForwards(target targetFlags, cfg forward.Config, name string) error {
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		return usage("this shell is borrowed, by session "+outer+": its programs need no forward", "use another terminal, or leave it with exit first")
	}
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	place, err := a.find(client, target, name)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	way := func(ctx context.Context, host string) (session.Way, error) {
		w, err := client.Way(ctx, place.Session, host)
		if errors.Is(err, daemon.ErrNotRunning) {
			err = daemon.NoSession(place.Session)
		}
		return w, err
	}
	cfg.Dialer, cfg.Failed = &forward.Dialer{Way: way}, a.ui.notForwarded
	if _, err := way(ctx, ""); err != nil { // a session that is of no use says so now
		return err
	}
	server, err := forward.Listen(cfg)
	if err != nil {
		return listenFault(err, name)
	}
	for _, d := range server.Doors() {
		a.ui.forwarding(d, place)
	}
	a.ui.say("only programs of this user are served; Ctrl-C ends it")
	return server.Run(ctx)
}

// listenFault explains why a port cannot be had.
func listenFault(err error, name string) error {
	l, ok := errors.AsType[*forward.ListenError](err)
	if !ok {
		return err
	}
	f := &fault.Error{Code: fault.Laptop, ID: "BN2004", Op: "forward", Reason: l.Error(), Err: err, Hint: "see who has it: ss -ltnp 'sport = :" + strconv.Itoa(int(l.At.Port())) + "'; or name another port"}
	if errors.Is(err, syscall.EACCES) {
		f.Hint = "ports below 1024 are the administrator's: " + name + " 8080:HOST:PORT"
	}
	return f
}

// forwarding says what is served at a door.
func (u *ui) forwarding(d *forward.Door, place session.Place) {
	pod := place.Namespace + "/" + place.Pod
	switch d.Kind {
	case forward.KindPort:
		u.say("%v is %s, as pod %s reaches it", d.At, d.To, pod)
	case forward.KindSOCKS:
		u.say("%v is a SOCKS5 proxy into pod %s's network: curl --proxy socks5h://%v http://SERVICE", d.At, pod, d.At)
	case forward.KindHTTP:
		u.say("%v is an HTTP proxy into pod %s's network: curl --proxy http://%v http://SERVICE", d.At, pod, d.At)
	}
}

// notForwarded says which connection could not be served.
func (u *ui) notForwarded(f forward.Failure) {
	text := fmt.Sprintf("%v: ", f.At)
	if f.Strange {
		u.warn(text+fmt.Sprintf("a connection from %v was refused: %v", f.From, f.Err), "")
		return
	}
	u.say("%s", text+f.Err.Error())
}
