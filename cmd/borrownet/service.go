package main

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/settings"
)

// serviceCall is a `run` of a service of a stack, instead of a command.
type serviceCall struct {
	target targetFlags
	env    envFlags
	argv   []string
	dir    string // where it runs; "" = here
}

// service returns what `run NAME` means if NAME is a service of the stack that path, or
// the working directory, describes: nil if it is a command.
func service(cmd *cobra.Command, argv []string, path string, target targetFlags, env envFlags) (*serviceCall, error) {
	plain := cmd.ArgsLenAtDash() < 0 && len(argv) == 1 && target.session == "" && target.pod == ""
	if !plain && path == "" {
		return nil, nil
	}
	if !plain {
		return nil, usage("--file is for a service of the stack", cmd.CommandPath()+" -f "+path+" SERVICE")
	}
	read := settings.Load
	if path == "" {
		path, read = settings.Name, settings.Read
	}
	file, err := read(path)
	if err != nil {
		return nil, err
	}
	name := argv[0]
	svc, ok := file.Sessions[name]
	switch {
	case !ok && cmd.Flags().Changed("file"):
		_, err := services(file, argv)
		return nil, err
	case !ok:
		return nil, nil
	case len(svc.Command) == 0:
		return nil, &fault.Error{Code: fault.Usage, Op: "run", Object: "service " + name, Reason: file.Path() + " names no command for it",
			Hint: fmt.Sprintf("%s --session %s -- COMMAND, or command: COMMAND in the file", cmd.CommandPath(), name)}
	}
	call := &serviceCall{target: target.of(file, name), env: env, argv: svc.Command, dir: file.Beside(svc.Dir)}
	var set []string
	for _, k := range slices.Sorted(maps.Keys(svc.Env)) {
		set = append(set, k+"="+svc.Env[k])
	}
	call.env.set = append(set, env.set...)
	call.env.take = slices.Concat(svc.PodEnv, env.take)
	call.env.unset = slices.Concat(svc.Unset, env.unset)
	if env.file == "" {
		call.env.file = file.Beside(svc.EnvFile)
	}
	return call, nil
}

// enter goes where the service's command runs.
func (c *serviceCall) enter() error {
	if c.dir == "" {
		return nil
	}
	if err := os.Chdir(c.dir); err != nil {
		return &fault.Error{Code: fault.Usage, Op: "run service " + c.target.session + " in", Object: c.dir, Reason: cause(err), Err: err, Hint: "dir in the stack's file is relative to that file"}
	}
	return os.Setenv("PWD", c.dir)
}
