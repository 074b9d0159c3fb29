package main

import (
	"fmt"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// errorText explains a kind of error. The first two digits of its name are the exit
// code, and a name keeps its meaning for ever.
type errorText struct {
	id      string
	meaning string
	look    []string // what to look at, the first thing first
}

// errorTable has every error with a name.
var errorTable = []errorText{
	{"BN0201", "no agent image was named, and none is published", []string{
		"--agent-image target needs none: the agent runs in the image of the container you borrow",
		"make agent-image builds one; push it to a registry that the cluster's nodes pull from",
		"say it once: export BORROWNET_AGENT_IMAGE=..., or agentImage: in borrownet.yaml"}},

	{"BN1001", "the kubeconfig cannot be read, or says nothing of a cluster", []string{
		"kubectl config view, with the same KUBECONFIG", "--kubeconfig names another file"}},
	{"BN1002", "the kubeconfig has no such context", []string{"kubectl config get-contexts", "borrownet demo --keep serves the context demo"}},
	{"BN1003", "the API server cannot be reached, or does not answer", []string{
		"is this the right cluster? kubectl cluster-info", "is its VPN up? is a proxy needed (HTTPS_PROXY, proxy-url in the kubeconfig)?"}},
	{"BN1004", "the API server's certificate is not one that the kubeconfig trusts", []string{
		"get a fresh kubeconfig: the cluster may have been made anew", "--tls-server-name, where a tunnel makes the name another", "the clock of this machine"}},
	{"BN1005", "the API server does not accept your credentials", []string{"log in again; kubectl auth whoami says who you are", "they expire: a session that is up goes on once you have logged in"}},
	{"BN1006", "the program that the kubeconfig gets credentials from is missing, or failed", []string{
		"kubectl auth whoami runs the same program", "it runs with the environment of the shell in which you typed up"}},

	{"BN1101", "there is no such namespace", []string{"kubectl get namespaces", "-n names one; without it the kubeconfig's context does"}},
	{"BN1102", "no pod, workload or service has that name", []string{"borrownet ls -n NAMESPACE lists what there is", "--pod takes a pod, TYPE/NAME, or a bare name"}},
	{"BN1103", "the name means several things that have different pods", []string{"name the type too: --pod deploy/NAME"}},
	{"BN1104", "no pod of it can be borrowed now", []string{
		"borrownet ls -n NAMESPACE says why", "kubectl describe pod NAME", "static pods and Windows pods cannot be borrowed"}},
	{"BN1105", "the pod has no such container", []string{"the hint names those that it has", "without -c the pod's default container is borrowed"}},
	{"BN1106", "the pod was there a moment ago and is not any more", []string{"a rollout replaces pods: borrow the workload, --pod deploy/NAME, not the pod"}},
	{"BN1107", "no such host, as the pod resolves names", []string{"borrownet explain dns NAME shows each question and answer"}},

	{"BN1201", "you lack a right in the namespace", []string{
		"the hint has the command with which an administrator grants it", "borrownet rbac prints the smallest Role", "borrownet doctor -n NAMESPACE lists what is missing"}},
	{"BN1202", "Pod Security refuses the ephemeral container, or the pod itself", []string{
		"it judges the whole pod: one that came before its namespace got the level takes no container at all", "kubectl get namespace NAME --show-labels"}},
	{"BN1203", "a ValidatingAdmissionPolicy refuses it", []string{
		"borrownet's own policy admits the images it was printed with: borrownet policy", "kubectl get validatingadmissionpolicy NAME -o yaml"}},
	{"BN1204", "an admission webhook or plugin refuses it", []string{"its text is in the error; ask who runs it to allow pods/ephemeralcontainers by field manager borrownet"}},
	{"BN1205", "the agent's image cannot be pulled or used", []string{
		"is --agent-image right, and does the node reach that registry?", "the pod's imagePullSecrets are used, no others", "--agent-image target needs no image"}},
	{"BN1206", "the node does not start the agent, or it ended at once", []string{
		"kubectl describe pod NAME", "kubectl logs NAME -c borrownet-agent-...", "with --agent-image target: is there a shell and a writable directory in the image?"}},
	{"BN1207", "the agent's program, which is to be sent, is not beside borrownet", []string{"install borrownet-agent into the same directory", "make agent-binaries, for nodes of another architecture"}},
	{"BN1209", "agent and client are of different releases", []string{"use the agent image of this release: borrownet version"}},

	{"BN2001", "the runtime directory cannot be used", []string{"it must be yours, of mode 0700 and of a short path", "XDG_RUNTIME_DIR names the directory that it is in"}},
	{"BN2002", "the daemon is of another version", []string{"borrownet down --all ends it with its sessions; the next up starts this version's"}},
	{"BN2003", "the daemon does not start or does not answer", []string{"daemon.log in the runtime directory", "borrownet doctor --offline"}},
	{"BN2004", "a port of this machine cannot be had", []string{"ss -ltnp says who has it", "PORT 0 takes any that is free"}},
	{"BN2005", "there is no place in memory for the pod's secrets", []string{"findmnt -T /dev/shm says whether that is a tmpfs, as it should be", "XDG_RUNTIME_DIR may name a directory on another tmpfs"}},

	{"BN2101", "this machine allows no way for programs into a session", []string{"borrownet doctor --offline says what would", "in a container: --security-opt seccomp=unconfined"}},
	{"BN2102", "the rung that was asked for does not work here", []string{"--hook auto takes what does", "borrownet doctor --offline"}},
	{"BN2103", "the session's network namespace cannot be made", []string{"borrownet doctor --offline", "on Ubuntu: the AppArmor profile that doctor prints"}},
	{"BN2104", "the command cannot be brought into the session", []string{"--hook auto chooses another rung for programs that one cannot take"}},
	{"BN2105", "the session takes no programs", []string{"borrownet forward PORT:HOST:PORT, or --socks5 PORT, for programs as they are", "on Linux: borrownet down, then up without --hook none", "elsewhere: a Linux virtual machine, in which programs can be wrapped"}},
	{"BN2106", "what was asked for is possible on Linux only", []string{"a Linux virtual machine", "borrownet forward works elsewhere too"}},

	{"BN2201", "the container engine is not on this machine, or its containers are in a virtual machine", []string{
		"a session's network can be shared on the machine that it is on alone", "docker context show; DOCKER_HOST"}},
	{"BN2202", "the container engine does not answer, or refuses", []string{"docker info says why", "may you use it? membership of the group docker, or rootless"}},
	{"BN2203", "a container does not start, or cannot join the session", []string{"docker logs NAME", "borrownet status shows what has joined"}},
	{"BN2204", "there is a container of the name that is wanted", []string{"docker rm NAME, or --docker=ANOTHER"}},
	{"BN2205", "there is no compose tool", []string{"install the plugin docker compose, or docker-compose"}},
	{"BN2206", "a network of the container would hide an address of the cluster", []string{"leave that network out, or give it another range: docker network create --subnet"}},

	{"BN3001", "no session is up", []string{"borrownet up --pod NAME", "sessions belong to a user and a runtime directory: is XDG_RUNTIME_DIR that of the shell of up?"}},
	{"BN3002", "no session has that name", []string{"borrownet status lists those that are up"}},
	{"BN3003", "there are several sessions, and none was named", []string{"--session NAME"}},
	{"BN3101", "a session of that name is up", []string{"borrownet run --session NAME uses it", "up --session gives the new one another name"}},
	{"BN3201", "the session is lost: its agent or its pod is gone for good", []string{
		"rollouts replace pods and their agents: borrownet up again", "an agent leaves after --idle-ttl without a client, and after --hard-ttl in any case"}},
	{"BN3301", "the agent runs, but does not answer", []string{"borrownet status --watch", "the agent's log: kubectl logs POD -c borrownet-agent-..."}},
	{"BN3302", "the connection to the cluster was lost and is dialled again", []string{"for three minutes flows wait, then they are reset and the session attaches anew as soon as the cluster answers"}},
	{"BN3303", "calls do not go through the pod's mesh, or its proxy is not well", []string{"the reason names the setting or the missing rule", "kubectl logs POD -c istio-proxy"}},
	{"BN3304", "the session has lost its pod, or the agent there, and looks for a pod of the workload to go on with", []string{
		"borrownet status NAME says what it waits for", "kubectl get pods, of the workload: a pod is taken once it is ready", "borrownet down NAME ends the search; up --stay does without one"}},
}

// errorsText is the help topic.
func errorsText() string {
	var b strings.Builder
	b.WriteString("Errors that have a name. It stands at the end of the error line, as in\n\n  error: find session: none is up [BN3001]\n\nand is `id` in JSON. Its first two digits are the exit code. \"borrownet explain BN3001\"\nsays what to look at.\n\n")
	for _, e := range errorTable {
		fmt.Fprintf(&b, "  %s   %s\n", e.id, e.meaning)
	}
	return strings.TrimRight(b.String(), "\n")
}

// explainError says what an error's name means and what to look at. The name may
// stand in brackets, as it is printed.
func explainError(name string) (string, bool) {
	name = strings.ToUpper(strings.Trim(name, "[]"))
	for _, e := range errorTable {
		if e.id == name {
			return bullets(e.id, e.meaning, e.look) + fmt.Sprintf("  - the exit code is %d: %s\n", e.code(), codeMeaning(e.code())), true
		}
	}
	return "", false
}

// code is the exit code that errors of this kind have.
func (e errorText) code() fault.Code {
	var n int
	fmt.Sscanf(e.id, "BN%2d", &n)
	return fault.Code(n)
}

// codeMeaning says in a few words what an exit code means.
func codeMeaning(code fault.Code) string {
	for _, band := range exitCodeTable {
		for _, c := range band {
			if c.code == code {
				return c.meaning
			}
		}
	}
	return "unknown"
}

// bullets is an explanation.
func bullets(name, meaning string, look []string) string {
	text := name + ": " + meaning + "\n"
	for _, l := range look {
		text += "  - " + l + "\n"
	}
	return text
}
