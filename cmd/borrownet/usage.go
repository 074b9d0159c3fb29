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
SIGTERM. With -d it returns once the session is set up, and "borrownet down" ends it.

The end of a session parks the agent: it leaves by itself after --idle-ttl, and
until then the next "up" takes it again. "borrownet down --stop-agent" ends it.

When the pod is deleted, evicted, rolled or out of reach with its node, the session says
so and goes on at another pod of the same workload, as soon as one is ready; of a
StatefulSet, at the one of the same name. Connections are then reset. Programs that run
keep their listeners, and their environment: what has changed in it is said. With --stay,
and for a pod that belongs to no workload, the session is lost instead.

Names are resolved as the pod does; those in a --local domain, or one of the list
local in borrownet.yaml, are asked of this machine's resolver. Names with an address
under hosts in that file are asked of nobody.

The agent's image is named by --agent-image, else $BORROWNET_AGENT_IMAGE, else
agentImage in borrownet.yaml in the working directory. None is published. The word
"target" needs none: the agent's container gets the image of the borrowed one, which
is on the node already, and the agent's program, which is beside this one, is sent
into it and checked there before it is executed. That sidesteps what the cluster's
policies say about images. It needs a shell, sha256sum and a writable directory in
the image, and the right to create pods/attach.

With --file all sessions that a file describes, or those named, are set up at once; they
may be in several namespaces, contexts and clusters. Those that are up already stay as they
are. Without -d they end with SIGINT or SIGTERM. docs/stack.md says what such a file may say.

--redirect has this machine answer what programs of the session call a Service for: a copy
that runs here, in a session of its own perhaps. It does so by the Service's names; its
addresses, as in ORDERS_SERVICE_HOST, lead to the cluster. The cluster is unaffected.

With --docker a container is kept whose network is the pod's; others join it by
"docker run --network container:borrownet-SESSION" or network_mode in a compose file.
It may do nothing but manage its own network, and its image is made of this program.
--publish HOST:PORT publishes a port of theirs on this machine's loopback.

--progress says how to tell what happens: on a terminal (tty) each step with its time, else
(plain) a line for each; json makes everything on standard error JSON, an object a line, for
other programs; quiet leaves warnings and errors.

With --mirror what the pod gets on a port is copied to a program of this machine, and
the pod goes on as before. That program acts on copied requests with the pod's identity:
what it writes, calls and charges happens a second time. It takes an agent that may get
CAP_NET_RAW for a helper; where the cluster's policy forbids that, the session works
without, and this says so.

With --dry-run nothing changes anywhere: the API server is asked which rights you
have and what it would do, every object that would change is printed as YAML, and
the exit code is what "up" without it would fail with.`

const upExample = `  borrownet up --pod api -n shop
  borrownet up --pod deploy/api -c app -d --session mine
  borrownet up --pod api --agent-image target
  borrownet up --pod api --mirror 8080:3000
  borrownet up -f borrownet.yaml -d
  borrownet up --pod api --dry-run`

const runLong = `Run a command as the pod. Its sockets, and those of all it starts, are in the
pod's network; loopback stays this machine's, and what it listens on can be reached
there ("borrownet status" lists the ports).

It has the environment that the container declares, without what describes a machine
or a language's runtime (PATH, HOME, JAVA_*, ...), what makes a program run code of
who set it (LD_*, BASH_ENV, NODE_OPTIONS, PYTHON*, GIT_*, ...) and proxies ("borrownet
help variables" lists them all); --pod-env takes one of these all the same. Over it come
--env-file, then --env. Of this machine its own proxies and cloud identity (AWS_PROFILE,
~/.aws, GOOGLE_APPLICATION_CREDENTIALS, AZURE_*, ~/.config/gcloud for pods of GKE) are
hidden; -v says all names. --env-out writes the pod's environment to a file.

It finds the container's Secrets, ConfigMaps, tokens and downward files at the
container's paths, read-only, and sees them change; "borrownet status" lists them.

The only session there is is taken, else name one with --session. With --pod a
session of that target is taken or set up first, as by "borrownet up -d"; it stays
until "borrownet down". Inside a borrowed shell the command is simply executed; if
another session is named, it and all it starts are that session's.

A single word, without --, that names a session in borrownet.yaml (or FILE) runs the command
that is given for it there, in its directory and with its variables.

The exit code is the command's; 125 if borrownet itself failed, 126 if the command
could not be executed, 127 if it was not found.`

const runExample = `  borrownet run -- curl http://orders
  borrownet run --session api -- go test ./...
  borrownet run --env LOG_LEVEL=debug --unset SENTRY_DSN -- ./server
  borrownet run --pod deploy/api -n shop -- ./server
  borrownet run api                     its command in borrownet.yaml`

const shellLong = `Open your shell in a session that is up, with a marked prompt. Leaving the shell
does not end the session. The exit code is the shell's; 125 if borrownet itself
failed.`

const envLong = `Print what makes the shell that reads it part of a session, as with "borrownet shell" but
without a new shell: programs started from it have the pod's network and environment.

  eval "$(borrownet env)"            bash, zsh and the like
  borrownet env | source             fish
  eval "$(borrownet env --unset)"    and out again

With --follow it prints what a start-up file needs for every terminal to follow "up" and
"down" by itself, at the next prompt:

  eval "$(borrownet env --follow)"   in ~/.bashrc or ~/.zshrc
  borrownet env --follow | source    in ~/.config/fish/config.fish

This works by a library that the shell's variables name (hook preload, or preload-relay). It
is not in programs that are statically linked, written in Go or set-user-id: started from
this shell they are on this machine's own network. "borrownet run" is for those, here too.`

const envExample = `  eval "$(borrownet env)"
  eval "$(borrownet env --session api)"
  eval "$(borrownet env --unset)"
  docker run --rm $(borrownet env --docker) IMAGE`

const recordLong = `Write what the mirrored ports of a session's pod get and answer to a pcapng file, which
Wireshark, tshark and tcpdump read and "borrownet replay" sends to a program again,
until it is interrupted or the session ends. NAME is the session, if there are several;
it must mirror (up --mirror). Other programs go on getting their copies.

The file holds requests of real people, with their tokens. It is made for you alone
(mode 0600), and lies where you put it.`

const recordExample = `  borrownet record -w api.pcapng
  borrownet record api -w - | tshark -r - -Y http.request`

const statusLong = `Show sessions: whether the path to the pod works and how long a request to the
agent and back takes now, what was borrowed, and what went through. The exit code
is 0 only if every session shown is ready. -o wide prints one line per session;
docs/output.md has the fields of -o json.

With --watch a terminal shows a dashboard: sessions with their round trips lately and what
moves through them; enter shows all of one, ? the keys. Elsewhere, and with -o, the same
is printed every second. It ends when you leave it or no session is left.`

const lsLong = `List what can be borrowed in a namespace: workloads and pods that belong to none, how
many of their pods are ready, the mesh that they are in, and who borrows them now. What
--pod takes is in the first column. Pod Security is the level that the namespace enforces.

Only the right to list pods is needed; what you may not read is said to be unknown. Who
borrows a pod is read in the logs of the agents there: "you" and the name of the session,
else what the other client calls itself (USER@HOST), which nobody has proven. A parked
agent waits for its client's next "up"; one whose client has gone without a word is said
to be borrowed for three minutes more.

-o wide adds containers, pods and nodes. docs/output.md has the fields of -o json.`

const lsExample = `  borrownet ls
  borrownet ls -n shop -o wide
  borrownet ls -A -o json`

const forwardLong = `Let programs that cannot be wrapped reach what a session's pod reaches: a browser, a
database tool, a container on this machine's network. Each PORT of this machine's loopback
becomes PORT of HOST, with the pod's name resolution; --socks5 and --http-proxy serve
proxies, through which every host can be reached. PORT 0 is any that is free, and
HOST:PORT alone takes the same number here.

Only programs of the same user are served: the kernel says whose each connection is. TCP
only; a connection that is refused in the cluster is reset here, as it was accepted
before that could be known, and a proxy says why. localhost is this machine, but for ports
that the session was set up with --remote-localhost for.

It stays in the foreground until it is interrupted; connections that stand by then go on
until the session ends. The only session there is is taken, else name one with --session.
With --pod a session of that target is taken or set up first.`

const forwardExample = `  borrownet forward 5432:db:5432
  borrownet forward 8080:orders:80 8443:orders:443 --session api
  borrownet forward --socks5 1080 --http-proxy 3128`

const explainDNSLong = `Resolve NAME as for a program of the session, and say how: the names that the pod's
search list makes of it, which nameserver was asked or that the answer was kept from
earlier, what came back and how long it is kept, and what the program gets.

The exit code is 0 whatever the answer is.`

const explainDNSExample = `  borrownet explain dns orders
  borrownet explain dns _http._tcp.orders --type SRV`

const cpLong = `Copy a file of the pod, as it is now: PATH is as its container sees it, FILE is where it
goes, readable by you alone; - is standard output. It works for what the agent can read:
Secrets, ConfigMaps, tokens and downward files, also where programs do not see them
because their place is one of this machine's own (/etc). "borrownet status" lists them.`

const cpExample = `  borrownet cp /etc/app/config.yaml config.yaml
  borrownet cp /var/run/secrets/kubernetes.io/serviceaccount/token -`

const downLong = `End a session: NAME, or the only one there is; with --file those that a file
describes. The agent in the pod is parked, so that the next "up" is quick, and leaves by
itself; --stop-agent ends it now. An agent that is just being placed, because the session
starts or is on its way to another pod, cannot be told yet: --stop-agent waits up to five
seconds for it.`

const demoLong = `Show the whole job on a cluster that lives inside this process: a pod to borrow, two
Services to call and a DNS server. Each step is a command as you would type it, with
its real output: the call without borrownet fails, the same call as the pod works.
It needs no cluster, no root and no network; what is real in it and what is not is
said first. At the end nothing of it is left.

With --keep it stays until it is interrupted, and says what to try: "up", "run",
"shell", "status" and "down" work on it as on a cluster, which --context demo names
for as long as it runs.

With --hook it shows one way for programs into the session. Where a library does that and
there is no namespace (preload-relay), the demo's own caller, which is written in Go, asks
the session itself.

The exit code is 0 only if every step showed what it promises.`

const demoExample = `  borrownet demo
  borrownet demo --keep`

const demoCallLong = `Call a URL with the sockets and the resolver that any program has: http://HOST/PATH,
tcp://HOST:PORT or udp://HOST:PORT, which are sent TEXT, or dns://NAME.`

const demoRollLong = `Replace the pod of deploy/api in the demo that is up, as a rollout does: the session says
so, its connections are reset, and it goes on at the new pod, whose address is another.`

const composeLong = `Run the compose tool of this machine on your compose file, of which some services
are pods: SERVICE has the network, the environment and the files of TARGET, all others
are as they would be. Services reach each other by their names; names that compose does
not know are the cluster's. A service's ports, networks and names move to a container
borrownet-SERVICE that is added, so they work as they did. --mirror SERVICE=PORT copies
what the pod gets on PORT into the service, which sees who sent it; the pod's callers go
on to get the pod's answers.

Flags before COMMAND are those below, everything after it is the compose tool's. "up",
"create", "run", "start" and "restart" borrow the pods first, in sessions named
PROJECT-SERVICE; "down" gives them back. "config" prints the file that is used, and
what is in it of the pods' variables may be secret.`

const composeExample = `  borrownet compose --service web=api up -d
  borrownet compose --service web=api --service worker=deploy/worker@orders up --build
  borrownet compose --service web=api --mirror web=8080:3000 up -d
  borrownet compose --service web=api logs -f web
  borrownet compose --service web=api down`

const rbacLong = `Print the smallest Role with which borrownet works in a namespace, and with
--subject the RoleBinding to those who get it, as YAML for "kubectl apply". Every
right in it is needed: without it a command fails and names it.

Mirroring takes no more rights: whether an agent may have NET_RAW is for policies to say.

Where nobody may forward ports, --attach prints the Role with pods/attach in its place.

Who has this Role can add a container to any pod of the namespace, and so read every
Secret there; "borrownet policy" prints what closes that.`

const rbacExample = `  borrownet rbac -n shop --workloads --subject group:developers | kubectl apply -f -
  borrownet rbac -n shop --subject user:jane --subject serviceaccount:ci/runner`

const policyLong = `Print a ValidatingAdmissionPolicy and its binding, as YAML for "kubectl apply". In
namespaces with the label (--label) they let only borrownet's agent be added to a pod
as an ephemeral container: its image, its arguments, environment and mounts that one
container of the pod has already, no capability (NET_RAW with --mirror), never root, never
the mesh proxy's uid or gid. Other namespaces are left alone, and so are containers that are
there already. It needs Kubernetes 1.30 or newer.

Why it matters: who may add ephemeral containers may otherwise read every Secret of
the namespace, because the environment of such a container may name any of them.

--registry trusts everyone who can push below PREFIX: an image there can do what it
likes with what the agent has. Prefer --image. --target-image admits agents that the
client sends into the image of a container of the pod ("up --agent-image target"); they
are those beside this borrownet, so print the policy with the release that is used.`

const policyExample = `  borrownet policy --image registry.example.org/borrownet-agent@sha256:DIGEST | kubectl apply -f -
  kubectl label namespace shop borrownet.dev/agent-only=true`

const doctorLong = `Look for what would keep borrownet from working: on this machine, in the kubeconfig,
and, as far as it lets itself be asked, in the cluster. Nothing is changed anywhere.
Each thing that was looked at is ok, a warning (borrownet works, but less well than it
could) or a failure, with what to do about it.

With --pod the target is looked for, and the API server judges the agent's container
in a dry run, as by "borrownet up --dry-run". The path of each session that is up is
measured. With --offline no cluster is asked.

The exit code is 0 if nothing failed, else what a command would fail with because of
the first failure; "borrownet explain" says more of the code, and of the name that
stands at the end of an error.`

const doctorExample = `  borrownet doctor
  borrownet doctor --offline
  borrownet doctor --pod deploy/api -n shop -o json`

const gatherLong = `Write a file to attach to a report of a problem: versions, what doctor finds, sessions
and what moved through them, the daemon's log and those of your sessions' agents, and the
names of environment variables. It stays on this machine.

What looks like a secret, and what is known to be one (values of variables with such
names, credentials of the kubeconfig, keys of sessions), is left out; names of contexts,
namespaces, pods, hosts and users stay. Look into it before you pass it on.`

const gatherExample = `  borrownet gather
  borrownet gather --pod deploy/api -n shop
  borrownet gather --offline --output-file report.tar.gz`

const explainLong = `Say where the connections of a session's programs go, and by which rung of the hook
they enter it and why: of the session NAME, or of all. With a number, say what that
exit code means and what to look at; with the name of an error, which stands in brackets
at the end of its line, the same for that.`

const explainExample = `  borrownet explain
  borrownet explain 12
  borrownet explain BN1202`

const tailLong = `Show the requests that a session mirrors ("up --mirror"), one line for each once it is
known what became of it: when the live server had it, from whom, what was asked, and
the status of the local program's answer, or why it has none: refused, broken (the
program ended the connection), slow (no room), cut (bytes are missing). Health probes
and what filters leave out are not shown; "borrownet status" counts everything.

It ends with the session.`

const tailExample = `  borrownet tail
  borrownet tail --session api -o json`

const replayLong = `Do to a program on this machine what the clients of a recording have done to the
recorded one: the requests of each connection in their order, each byte as it was, the
next one when the one before is answered. The program's answers are discarded. FILE is
a pcapng or pcap file: of "borrownet record", tcpdump or Wireshark.

Connections of other protocols than HTTP/1 are replayed as the bytes that the client
sent. Bytes that the recorded program acknowledged and the recording does not have are
a gap: the request that they belong to is broken off, and counted.

One line is printed for each request, and a summary at the end. The exit code is 0 only
if the program refused nothing. With --diff the program's answers are compared with the
recorded ones instead, where the recording has them: status, headers but those that
always differ (Date, Server, X-Request-Id, ...), and bodies, JSON ones by value.`

const replayExample = `  borrownet replay api.pcapng --to :3000
  borrownet replay api.pcapng --to :3000 --speed asap --filter method=GET --filter 'path=/orders/*'
  borrownet replay api.pcapng --to :3000 --speed asap --diff --diff-ignore '$.items[*].id'`

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
	return &cobra.Command{Use: "exit-codes", Short: "exit codes and what they mean (a help topic)", Long: exitCodesText()}
}

// errorNames is a help topic.
func errorNames() *cobra.Command {
	return &cobra.Command{Use: "errors", Short: "errors that have a name (a help topic)", Long: errorsText()}
}

// help returns the help command. Cobra's own does not fail on unknown topics.
func (a *app) help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "help about a command, or about exit-codes, errors and variables",
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
