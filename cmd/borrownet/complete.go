package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/demo"
	"github.com/borrownet/borrownet/cmd/internal/settings"
	"github.com/borrownet/borrownet/hook"
)

// completionTimeout bounds what a person waits for after the tab key.
const completionTimeout = 2 * time.Second

// complete lets the shell complete a flag of cmd, which has it.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag exists: unreachable
	}
}

// nameList are completions that are no files. An error leaves the person without.
func nameList(list []string, err error) ([]string, cobra.ShellCompDirective) {
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := make([]string, 0, len(list))
	for _, text := range list {
		out = append(out, plain(text))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeSessions lets the shell complete --session.
func (a *app) completeSessions(cmd *cobra.Command) { complete(cmd, "session", a.sessionNames) }

// sessionNames lists the sessions for shell completion.
func (a *app) sessionNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, dir, err := a.client()
	if err != nil || len(args) > 0 {
		return nameList(nil, err)
	}
	defer dir.Remove()
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	list, err := client.List(ctx, false)
	var names []string
	for _, st := range list {
		names = append(names, st.Session+"\t"+st.Target.Namespace+"/"+st.Target.Pod)
	}
	return nameList(names, err)
}

// stackServices are those of the stack at path that keep says yes to and no word names
// yet, each with where it is borrowed.
func stackServices(path string, named []string, keep func(settings.Service) bool) []string {
	file, err := settings.Read(path)
	if err != nil {
		return nil // up and run say what is wrong with it
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(file.Sessions)) {
		svc := file.Sessions[name]
		if !slices.Contains(named, name) && keep(svc) {
			names = append(names, name+"\t"+strings.Join(svc.Command.Line(), " "))
		}
	}
	return names
}

func anyService(settings.Service) bool { return true }

// completeRun completes the command that run runs, which may be a service of the stack,
// with its own words, and files.
func completeRun(path *string, target *targetFlags) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || target.session != "" || target.pod != "" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		names := stackServices(cmp.Or(*path, settings.Name), nil, func(s settings.Service) bool { return len(s.Command) > 0 })
		if *path != "" {
			return nameList(names, nil)
		}
		return names, cobra.ShellCompDirectiveDefault
	}
}

// completeStack completes services where a file is named, else what other says.
func completeStack(path *string, other cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if *path == "" {
			return other(cmd, args, word)
		}
		return nameList(stackServices(*path, args, anyService), nil)
	}
}

// nothing completes to nothing.
func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nameList(nil, nil)
}

// look asks the cluster that the flags given so far select.
func (t *targetFlags) look(ask func(context.Context, catalogue) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	flags, err := absolute(t.kube)
	if err != nil {
		return nameList(nil, err)
	}
	flags.RequestTimeout = completionTimeout
	cluster, err := connect(flags)
	if err != nil {
		return nameList(nil, err)
	}
	defer cluster.Close()
	c, ok := cluster.(catalogue)
	if !ok {
		return nameList(nil, nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	return nameList(ask(ctx, c))
}

func (t *targetFlags) completeNamespaces(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return t.look(func(ctx context.Context, c catalogue) ([]string, error) { return c.ListNamespaces(ctx) })
}

// completeTargets lists workloads, then their pods.
func (t *targetFlags) completeTargets(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return t.look(func(ctx context.Context, c catalogue) ([]string, error) {
		offers, err := c.Offers(ctx, "")
		if err != nil {
			return nil, err
		}
		var refs, pods []string
		for _, o := range offers.Targets {
			if o.Problem == "" {
				refs = append(refs, o.Ref)
				pods = append(pods, o.PodNames...)
			}
		}
		return append(refs, pods...), nil
	})
}

// completeContainers lists those of the target that --pod names.
func (t *targetFlags) completeContainers(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return t.look(func(ctx context.Context, c catalogue) ([]string, error) {
		offers, err := c.Offers(ctx, "")
		if err != nil {
			return nil, err
		}
		for _, o := range offers.Targets {
			_, name, _ := strings.Cut(o.Ref, "/")
			if t.pod == o.Ref || t.pod == name || slices.Contains(o.PodNames, strings.TrimPrefix(t.pod, "pod/")) {
				return o.Containers, nil
			}
		}
		return nil, nil
	})
}

func (t *targetFlags) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	flags, err := absolute(t.kube)
	if err != nil {
		return nameList(nil, err)
	}
	names, err := kube.Contexts(flags)
	if demoRunning() != nil {
		return nameList(append(names, demo.Context), nil)
	}
	return nameList(names, err)
}

func completeRungs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, r := range hook.Rungs() {
		names = append(names, string(r))
	}
	return nameList(names, nil)
}
