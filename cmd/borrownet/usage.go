package main

import "github.com/spf13/cobra"

const rootLong = `Borrownet lets a program on this machine be a pod: its connections leave
through the pod's own network, with the pod's address and identity, it resolves
names as the pod does and has the pod's environment. Only the programs you start
with it are routed; the rest of the machine, and the pod itself, stay as they are.

  $ borrownet up --pod api              a shell that is the pod; leaving it ends all
  $ curl http://orders                  typed there, it goes out from the pod

  $ borrownet up --pod api -d           the same for single commands
  $ borrownet run -- curl http://orders
  $ borrownet status
  $ borrownet down`

const upLong = `Borrow a pod. The agent is attached to it as an ephemeral container with the
least privileges; nothing else in the cluster changes. TARGET is a pod, TYPE/NAME
of a workload or service, or a bare name that matches one.

On a terminal this ends in your shell, borrowed, with a marked prompt; leaving it
ends the session. Elsewhere it stays in the foreground until it gets SIGINT or
SIGTERM. With -d it returns once the session is ready, and "borrownet down" ends it.

The end of a session parks the agent: it leaves by itself after --idle-ttl, and
until then the next "up" takes it again. "borrownet down --stop-agent" ends it.

The agent's image is named by --agent-image, else $BORROWNET_AGENT_IMAGE, else
agentImage in borrownet.yaml in the working directory.

With --dry-run nothing changes anywhere: the API server is asked which rights you
have and what it would do, every object that would change is printed as YAML, and
the exit code is what "up" without it would fail with.`

const upExample = `  borrownet up --pod api -n shop
  borrownet up --pod deploy/api -c app -d --session mine
  borrownet up --pod api --dry-run`

const runLong = `Run a command as the pod. Its sockets, and those of all it starts, are in the
pod's network; loopback stays this machine's, and what it listens on can be reached
there ("borrownet status" lists the ports). It has the pod's environment, without
what describes the machine (PATH, HOME and the like). http_proxy and its kin of
this machine are hidden from it: it goes out through the pod (-v says which).

The only session there is is taken, else name one with --session. With --pod a
session of that target is taken or set up first, as by "borrownet up -d"; it stays
until "borrownet down". Inside a borrowed shell the command is simply executed; if
another session is named, it and all it starts are that session's.

The exit code is the command's; 125 if borrownet itself failed, 126 if the command
could not be executed, 127 if it was not found.`

const runExample = `  borrownet run -- curl http://orders
  borrownet run --session api -- go test ./...
  borrownet run --pod deploy/api -n shop -- ./server`

const shellLong = `Open your shell in a session that is up, with a marked prompt. Leaving the shell
does not end the session. The exit code is the shell's; 125 if borrownet itself
failed.`

const statusLong = `Show sessions: whether the path to the pod works and how long a request to the
agent and back takes now, what was borrowed, and what went through. The exit code
is 0 only if every session shown is ready.`

const downLong = `End a session: NAME, or the only one there is. The agent in the pod is parked, so
that the next "up" is quick, and leaves by itself; --stop-agent ends it now.`

const demoLong = `Show the whole job on a cluster that lives inside this process: a pod to borrow, two
Services to call and a DNS server. Each step is a command as you would type it, with
its real output: the call without borrownet fails, the same call as the pod works.
It needs no cluster, no root and no network; what is real in it and what is not is
said first. At the end nothing of it is left.

With --keep it stays until it is interrupted, and says what to try: "up", "run",
"shell", "status" and "down" work on it as on a cluster, which --context demo names
for as long as it runs.

The exit code is 0 only if every step showed what it promises.`

const demoExample = `  borrownet demo
  borrownet demo --keep`

const demoCallLong = `Call a URL with the sockets and the resolver that any program has: http://HOST/PATH,
tcp://HOST:PORT or udp://HOST:PORT, which are sent TEXT, or dns://NAME.`

const rbacLong = `Print the smallest Role with which borrownet works in a namespace, and with
--subject the RoleBinding to those who get it, as YAML for "kubectl apply". Every
right in it is needed: without it a command fails and names it.

Who has this Role can add a container to any pod of the namespace, and so read every
Secret there; "borrownet policy" prints what closes that.`

const rbacExample = `  borrownet rbac -n shop --workloads --subject group:developers | kubectl apply -f -
  borrownet rbac -n shop --subject user:jane --subject serviceaccount:ci/runner`

const policyLong = `Print a ValidatingAdmissionPolicy and its binding, as YAML for "kubectl apply". In
namespaces with the label (--label) they let only borrownet's agent be added to a pod
as an ephemeral container: its image, its arguments, environment and mounts that one
container of the pod has already, no capability but NET_RAW, never root, never the mesh
proxy's uid or gid. Other namespaces are left alone, and so are containers that are
there already. It needs Kubernetes 1.30 or newer.

Why it matters: who may add ephemeral containers may otherwise read every Secret of
the namespace, because the environment of such a container may name any of them.

--registry trusts everyone who can push below PREFIX: an image there can do what it
likes with what the agent has. Prefer --image.`

const policyExample = `  borrownet policy --image registry.example.org/borrownet-agent@sha256:DIGEST | kubectl apply -f -
  kubectl label namespace shop borrownet.dev/agent-only=true`

const exitCodesLong = `Exit codes of every command but run and shell:

    0   it worked
    1   anything not listed here
    2   a mistake on the command line or in borrownet.yaml

   10   the cluster: kubeconfig, API server, credentials, permissions to look
   11   the target: no such namespace, pod or container, or it does not run
   12   the agent could not be placed: permissions, policy, image

   20   this machine: runtime directory, daemon
   21   this machine: namespaces, packet device, seccomp

   30   no such session
   31   a session of that name exists
   32   the session is lost: its agent is gone for good
   33   no way to the agent at the moment

  130   interrupted

run and shell return the exit code of the command; 128+n if signal n ended it,
125 if borrownet itself failed, 126 if the command could not be executed, 127 if it
was not found.`

const usageTemplate = `usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND [flags]

commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if .HasExample}}

examples:
{{.Example}}{{end}}{{if .HasAvailableLocalFlags}}

flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

// exitCodes is a help topic.
func exitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "exit codes and what they mean (a help topic)", Long: exitCodesLong}
}

// help returns the help command. Cobra's own does not fail on unknown topics.
func (a *app) help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "help about a command, or about exit-codes",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usage("there is no command "+args[len(args)-1], a.name()+" help")
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}
