package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// codeText is what a person may learn of one.
type codeText struct {
	code    fault.Code
	meaning string
	look    []string // what to look at, the first thing first
}

// exitCodeTable has every code of every command but run and shell. Codes of one
// band stand together.
var exitCodeTable = [][]codeText{
	{
		{0, "it worked", nil},
		{fault.General, "anything not listed here", []string{"the error line says what; -v says more"}},
		{fault.Usage, "a mistake on the command line or in borrownet.yaml", []string{"the hint has the line that would be right", "COMMAND --help lists the flags"}},
	},
	{
		{fault.Cluster, "the cluster: kubeconfig, API server, credentials, permissions to look", []string{
			"borrownet doctor says which of them", "what kubectl says with the same --kubeconfig, --context and -n"}},
		{fault.Target, "the target: no such namespace, pod or container, or it does not run", []string{
			"kubectl get pods -n NAMESPACE", "--pod takes a pod, TYPE/NAME of a workload or service, or a bare name"}},
		{fault.Agent, "the agent could not be placed: permissions, policy, image", []string{
			"borrownet up --dry-run --pod NAME shows what the API server says of it, and which rights are missing",
			"borrownet rbac prints the smallest Role for an administrator to grant",
			"the image must be one that the cluster's nodes can pull: --agent-image"}},
	},
	{
		{fault.Laptop, "this machine: runtime directory, daemon", []string{
			"borrownet doctor --offline", "daemon.log in the runtime directory, which doctor names"}},
		{fault.Hook, "this machine: namespaces, packet device, seccomp", []string{
			"borrownet doctor --offline says what is missing and how to get it",
			"--hook auto takes what this machine allows; another rung was asked for, or none works"}},
		{fault.Engine, "this machine: the container engine", []string{
			"docker info: borrownet uses the same engine, by DOCKER_HOST, DOCKER_CONTEXT or the current context",
			"docker ps -a --filter label=dev.borrownet.session shows what is borrownet's"}},
	},
	{
		{fault.NoSession, "no such session", []string{"borrownet status lists them", "borrownet up --pod NAME"}},
		{fault.SessionExists, "a session of that name exists", []string{"borrownet run uses it", "up --session gives the new one another name"}},
		{fault.SessionLost, "the session is lost: its agent is gone for good", []string{
			"pods are replaced by every rollout, and take their agents with them: borrownet up again",
			"an agent leaves by itself after --idle-ttl without a client, and after --hard-ttl in any case"}},
		{fault.NoDataPath, "no way to the agent at the moment", []string{
			"borrownet status --watch: a lost connection to the API server is dialled again for three minutes, and flows go on",
			"credentials that have expired are named there"}},
	},
	{
		{fault.Interrupted, "interrupted", nil},
	},
}

// wrapped are the codes of run and shell that are not the command's own.
var wrapped = []codeText{
	{exitOurs, "run and shell: borrownet itself failed, before the command could or while it ran", []string{
		"the error line says why; borrownet status shows the session", "a command may end with 125 too: then there is no error line"}},
	{exitNoExec, "run and shell: the command could not be executed", []string{"is it executable, and for this machine?"}},
	{exitNotFound, "run and shell: the command was not found", []string{"PATH is this machine's, not the pod's"}},
}

// exitCodesText is the help topic.
func exitCodesText() string {
	var b strings.Builder
	b.WriteString("Exit codes of every command but run and shell:\n")
	for _, band := range exitCodeTable {
		b.WriteByte('\n')
		for _, c := range band {
			fmt.Fprintf(&b, "%5d   %s\n", c.code, c.meaning)
		}
	}
	b.WriteString(`
run and shell return the exit code of the command; 128+n if signal n ended it,
125 if borrownet itself failed, 126 if the command could not be executed, 127 if it
was not found. "borrownet explain CODE" says more about one, and "borrownet help errors"
lists what in a band can be wrong.`)
	return b.String()
}

// explainCode says what an exit code means and what to look at.
func explainCode(code int) (string, bool) {
	for _, band := range append(exitCodeTable, wrapped) {
		for _, c := range band {
			if int(c.code) != code {
				continue
			}
			return bullets(strconv.Itoa(code), c.meaning, c.look), true
		}
	}
	return "", false
}
