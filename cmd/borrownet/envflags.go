package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
)

// envFlags are the flags of commands that start programs: what is different in
// what these see.
type envFlags struct {
	set, take, unset []string
	file, out        string
	format           string
	keepIdentity     bool
	hostname         bool
	noFiles          bool
}

func (e *envFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&e.set, "env", nil, "`NAME=VALUE` for the environment, over the pod's and this machine's; may be repeated")
	f.StringArrayVar(&e.unset, "unset", nil, "`NAME` that the environment does not have; may be repeated")
	f.StringArrayVar(&e.take, "pod-env", nil, "`NAME` that is taken from the pod though it is left out by default; may be repeated")
	f.StringVar(&e.file, "env-file", "", "`FILE` with lines of NAME=VALUE, as by --env")
	f.StringVar(&e.out, "env-out", "", "`FILE` to write the pod's environment to, for other programs; it may hold secrets")
	f.StringVar(&e.format, "format", "dotenv", "`FORMAT` of --env-out: dotenv, json or sh")
	f.BoolVar(&e.hostname, "hostname", false, "the machine's name is the pod's for the command")
	f.BoolVar(&e.noFiles, "no-files", false, "the pod's files do not appear at their paths: variables that name them lead to the copies instead")
	f.BoolVar(&e.keepIdentity, "local-identity", false, "this machine's cloud identity (AWS_PROFILE, ~/.aws and the like) stays visible")
}

// any reports whether one of the flags is given.
func (e *envFlags) any() bool {
	return len(e.set)+len(e.take)+len(e.unset) > 0 || e.file != "" || e.out != "" || e.keepIdentity || e.hostname || e.noFiles
}

// rules checks the flags and returns what they ask for. name is the command.
func (e *envFlags) rules(name string) (launch.Rules, error) {
	r := launch.Rules{Take: e.take, Unset: e.unset, KeepIdentity: e.keepIdentity}
	if _, err := launch.Format(e.format, nil); err != nil {
		return r, usage("--"+err.Error(), name+" --format dotenv")
	}
	if e.file != "" {
		text, err := os.ReadFile(e.file)
		if err == nil {
			r.Set, err = launch.ParseDotenv(string(text))
		}
		if err != nil {
			return r, &fault.Error{Code: fault.Usage, Op: "read", Object: e.file, Reason: cause(err), Err: err, Hint: "each line is NAME=VALUE"}
		}
	}
	for _, kv := range e.set {
		if !launch.IsVariable(kv) {
			return r, usage(fmt.Sprintf("--env %q is not NAME=VALUE", kv), name+" --env MODE=test")
		}
		r.Set = append(r.Set, kv)
	}
	return r, nil
}

// cause is an error without the path that is said already.
func cause(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// nested refuses what a shell that is borrowed already cannot do any more.
func (e *envFlags) nested(outer string) error {
	if len(e.take) > 0 || e.out != "" || e.keepIdentity || e.hostname || e.noFiles {
		return usage("--pod-env, --env-out, --hostname, --no-files and --local-identity are for where a program becomes the pod, and this shell is that of session "+outer,
			"leave it with exit first, or use another terminal")
	}
	return nil
}

// save writes the borrowed environment where --env-out says. It is the person's
// file alone, and whole or not there.
func (e *envFlags) save(borrowed []string) error {
	if e.out == "" {
		return nil
	}
	text, err := launch.Format(e.format, borrowed)
	if err == nil {
		err = replace(e.out, text)
	}
	if err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "write the environment to", Object: e.out, Reason: cause(err), Err: err,
			Hint: "is there that directory, and may you write to it? ls -ld " + filepath.Dir(e.out)}
	}
	return nil
}

func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".borrownet-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// report says what the environment of a command is without.
func (a *app) report(env launch.Environment) {
	if len(env.Proxies) > 0 {
		a.ui.detail("hidden from the command, which goes out through the pod: %s", strings.Join(env.Proxies, " "))
	}
	if len(env.Identity) > 0 {
		a.ui.say("hidden from the command, which is the pod: %s (--local-identity leaves them)", strings.Join(env.Identity, " "))
	}
	if len(env.Excluded) > 0 {
		a.ui.detail("not taken from the pod: %s (--pod-env NAME takes one)", strings.Join(env.Excluded, " "))
	}
	for _, name := range env.Missing {
		a.ui.warn("the pod has no variable "+name, "")
	}
}
