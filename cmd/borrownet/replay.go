package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/recording"
	"github.com/borrownet/borrownet/netstack/replay"
)

// replayFlags are the flags of replay.
type replayFlags struct {
	to, speed, output string
	port              uint16
	selection         selectionFlags
	diff              bool
	ignore            []string
}

func (a *app) replay() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay FILE --to [HOST]:PORT", Short: "send recorded requests to a local program", Long: replayLong, Example: replayExample,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || f.to == "" {
				return usage("a recording and --to are wanted", cmd.CommandPath()+" api.pcapng --to :3000")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := f.config(cmd, args[0])
			if err != nil {
				return err
			}
			if f.diff {
				return a.replayAndCompare(cfg, f.output)
			}
			return a.replayFile(cfg, f.output)
		},
	}
	cmd.Flags().StringVar(&f.to, "to", "", "`ADDRESS` of the local program, [HOST]:PORT; without HOST it is 127.0.0.1")
	cmd.Flags().StringVar(&f.speed, "speed", "1x", "`FACTOR` of the recorded speed: 2x, 0.5x, or asap, which waits for the program alone")
	cmd.Flags().Uint16Var(&f.port, "port", 0, "`PORT` of the recorded program (default: all that connections were opened to)")
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "`FORMAT` of the summary: json or yaml")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "compare the program's answers with the recorded ones; the exit code is 1 if any differs")
	cmd.Flags().StringArrayVar(&f.ignore, "diff-ignore", nil, "do not compare `WHAT`, which may be given again: a header's name, or a place in JSON bodies like $.items[*].id")
	f.selection.add(cmd, "")
	return cmd
}

// config checks the flags.
func (f *replayFlags) config(cmd *cobra.Command, path string) (recording.Config, error) {
	again := cmd.CommandPath() + " " + path
	if f.output != "" && !slices.Contains(encode.Formats, f.output) {
		return recording.Config{}, usage("-o "+f.output+": not json or yaml", again+" --to "+f.to+" -o json")
	}
	to, err := localAddress(f.to)
	if err != nil {
		return recording.Config{}, usage("--to "+f.to+": "+err.Error(), again+" --to :3000")
	}
	speed, err := recording.ParseSpeed(f.speed)
	if err != nil {
		return recording.Config{}, usage("--speed: "+err.Error(), again+" --to "+f.to+" --speed 2x")
	}
	selection, err := f.selection.parse("", again+" --to "+f.to)
	if err != nil {
		return recording.Config{}, err
	}
	cfg := recording.Config{Path: path, To: to, Port: f.port, Speed: speed, Select: selection}
	for _, text := range f.ignore {
		if err := cfg.Ignore.Add(text); err != nil {
			return cfg, usage("--diff-ignore: "+err.Error(), again+" --to "+f.to+" --diff --diff-ignore 'X-Version'")
		}
	}
	return cfg, nil
}

// localAddress reads [HOST]:PORT.
func localAddress(text string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, errors.New("not [HOST]:PORT")
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	to, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil || to.Port() == 0 {
		return netip.AddrPort{}, errors.New("not an address and a port")
	}
	return to, nil
}

// replayFile replays and prints one line for each request, then the summary.
func (a *app) replayFile(cfg recording.Config, output string) error {
	ctx, stop := interruptible()
	defer stop()
	var mu sync.Mutex
	cfg.OnRequest = func(r replay.Request) {
		mu.Lock()
		defer mu.Unlock()
		if output == "" {
			a.ui.request(r)
		}
	}
	stats, err := recording.Replay(ctx, cfg)
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		return replayFault(cfg, err)
	}
	if output != "" {
		err = a.ui.encode(output, stats)
	} else {
		a.ui.say("%s", replayed(stats))
	}
	if err != nil {
		return err
	}
	return undelivered(cfg, stats)
}

// compared is what replay --diff has found.
type compared struct {
	Replay      replay.Stats        `json:"replay"`
	Compared    int                 `json:"compared"`
	Same        int                 `json:"same"`
	Differences []replay.Difference `json:"differences"` // of those that are not the same
}

// replayAndCompare replays and prints how the answers differ from the recorded ones.
func (a *app) replayAndCompare(cfg recording.Config, output string) error {
	ctx, stop := interruptible()
	defer stop()
	var mu sync.Mutex
	var found compared
	cfg.OnDifference = func(d replay.Difference) {
		mu.Lock()
		defer mu.Unlock()
		found.Compared++
		if len(d.Differs) == 0 {
			found.Same++
			return
		}
		if output == "" {
			a.ui.difference(d)
			return
		}
		found.Differences = append(found.Differences, d)
	}
	stats, err := recording.Replay(ctx, cfg)
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		return replayFault(cfg, err)
	}
	found.Replay = stats
	if output != "" {
		err = a.ui.encode(output, found)
	} else {
		a.ui.say("%s\nanswers: %d compared, %d the same", replayed(stats), found.Compared, found.Same)
	}
	if err == nil {
		err = undelivered(cfg, stats)
	}
	if err == nil && found.Same < found.Compared {
		err = &fault.Error{Code: fault.General, Op: "compare", Object: cfg.Path + " with " + cfg.To.String(), Reason: fmt.Sprintf("%d of %d answers differ", found.Compared-found.Same, found.Compared),
			Hint: "--diff-ignore leaves out headers and places in JSON that always do"}
	}
	return err
}

// replayFault says why a recording was not replayed.
func replayFault(cfg recording.Config, err error) error {
	f := &fault.Error{Code: fault.General, Op: "replay", Object: cfg.Path, Reason: err.Error(), Err: err}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.Reason, f.Hint = fault.Usage, "there is no such file", "borrownet record -w "+cfg.Path
	case errors.Is(err, recording.ErrNoServer) && cfg.Port != 0:
		f.Reason, f.Hint = fmt.Sprintf("it has no packet of port %d", cfg.Port), "borrownet replay "+cfg.Path+" --to "+cfg.To.String()
	case errors.Is(err, recording.ErrNoServer):
		f.Hint = fmt.Sprintf("borrownet replay %s --to %v --port PORT, the recorded program's", cfg.Path, cfg.To)
	}
	return f
}

// undelivered is the error of a replay that the program did not get whole.
func undelivered(cfg recording.Config, s replay.Stats) error {
	refused := s.Requests.Refused + s.Streams.Refused
	switch {
	case refused > 0:
		return &fault.Error{
			Code: fault.General, Op: "replay", Object: cfg.Path + " to " + cfg.To.String(), Reason: fmt.Sprintf("%d of %d were refused: %s", refused, s.Requests.Seen+s.Streams.Seen, s.Problem),
			Hint: "is the program running? ss -ltn sport = :" + fmt.Sprint(cfg.To.Port()),
		}
	case s.Requests.Seen+s.Streams.Seen == 0:
		return &fault.Error{Code: fault.General, Op: "replay", Object: cfg.Path, Reason: "there is no request in it, and no stream"}
	}
	return nil
}
