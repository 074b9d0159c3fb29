package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/recording"
)

func (a *app) record() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "record [NAME] -w FILE", Short: "write what a mirrored pod gets to a file", Long: recordLong, Example: recordExample, Args: atMostOne,
		ValidArgsFunction: a.sessionNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usage("no file is named", cmd.CommandPath()+" -w capture.pcapng")
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.recordTo(file, name)
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "", "`FILE` to write, pcapng; - is standard output")
	return cmd
}

// recordTo records until it is interrupted or the session ends.
func (a *app) recordTo(file, name string) (err error) {
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	ctx, stop := interruptible()
	defer stop()
	if name, err = a.pick(client, name); err != nil {
		return err
	}
	stream, err := client.Record(ctx, name)
	if errors.Is(err, daemon.ErrNotRunning) {
		err = daemon.NoSession(name)
	}
	if err != nil {
		return fault.From(err)
	}
	defer stream.Close()
	out := io.WriteCloser(os.Stdout)
	if file != "-" {
		if out, err = os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
			return unwritable(file, err)
		}
	}
	a.ui.say("recording to %s; SIGINT or SIGTERM ends it", file)
	written, err := copyRecords(ctx, out, wire.NewCaptureReader(stream), "borrownet "+a.version)
	if closeErr := out.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	a.ui.say("%d packets written", written)
	if err != nil {
		return unwritable(file, err)
	}
	return nil
}

func unwritable(file string, err error) error {
	return &fault.Error{Code: fault.Laptop, Op: "record to", Object: file, Reason: err.Error(), Err: err, Hint: "name another file with -w"}
}

// copyRecords writes a capture's stream as pcapng until ctx or the capture ends.
func copyRecords(ctx context.Context, out io.Writer, in *wire.CaptureReader, application string) (written uint64, err error) {
	first, err := in.Next()
	switch {
	case ctx.Err() != nil:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("the capture ended before it began: %w", err)
	case first.Stats == nil:
		return 0, errors.New("the capture does not say what it captures")
	}
	w, err := recording.NewWriter(out, *first.Stats, application)
	if err != nil {
		return 0, err
	}
	for {
		r, err := in.Next()
		switch {
		case err != nil:
			return w.Count(), w.Close() // it was interrupted, or the session has ended
		case r.Stats != nil:
			w.Stats(*r.Stats)
			err = w.Flush() // who reads along sees it
		case r.Data != nil:
			err = w.Packet(r)
		}
		if err != nil {
			return w.Count(), err
		}
	}
}
