// Package launch prepares what runs in a session: the environment of a program,
// which is the laptop's with the pod's laid over it, and shells with a marked
// prompt.
package launch

import (
	"slices"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// The variables that tell a program which session it runs in.
const (
	SessionVar   = "BORROWNET_SESSION"
	PodVar       = "BORROWNET_POD"
	NamespaceVar = "BORROWNET_NAMESPACE"
	// HookVar names the socket of the run around, for runs inside it.
	HookVar = "BORROWNET_HOOK"
)

// maxEnv bounds the variables that are taken from the pod, in bytes: execve(2)
// refuses more than about 2 MiB together with the arguments.
const maxEnv = 512 << 10

// laptops are variables that describe the machine and the person, not the
// application: the pod's would break programs here.
var laptops = []string{
	"PATH", "HOME", "HOSTNAME", "TERM", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "LANG", "LANGUAGE",
	"TMPDIR", "TZDIR", "MAIL", "EDITOR", "PAGER", "DISPLAY",
}

// dangerous are variables by which a shell or a loader runs code of whoever set
// them. They come from a pod, which is not trusted with the laptop.
var dangerous = []string{
	"ENV", "BASH_ENV", "PROMPT_COMMAND", "PS0", "PS1", "PS2", "PS3", "PS4", "IFS", "SHELLOPTS", "BASHOPTS", "CDPATH", "ZDOTDIR",
	"PYTHONSTARTUP", "PYTHONHOME", "PERL5OPT", "PERL5LIB", "RUBYOPT", "GCONV_PATH", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN",
}

// keptPrefixes are families of variables that are never taken from the pod.
var keptPrefixes = []string{"XDG_", "LC_", "LD_", "BASH_FUNC_", "GIT_", "SSH_", "BORROWNET_"}

// proxies are the laptop's own proxy variables: programs of a session leave
// through the pod.
var proxies = []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"}

// Env returns the environment of a program of the session at place, and the
// names of the laptop's variables that are hidden from it.
func Env(laptop []string, place session.Place) (env, hidden []string) {
	borrowed := map[string]bool{}
	var pod []string
	size := 0
	for _, kv := range place.Env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || !borrowable(name) || borrowed[name] || strings.ContainsRune(kv, 0) || size+len(kv) > maxEnv {
			continue
		}
		borrowed[name] = true
		size += len(kv)
		pod = append(pod, kv)
	}
	for _, kv := range laptop {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case borrowed[name], name == SessionVar, name == PodVar, name == NamespaceVar, name == HookVar:
		case slices.Contains(proxies, strings.ToLower(name)):
			hidden = append(hidden, name)
		default:
			env = append(env, kv)
		}
	}
	env = append(env, pod...)
	env = append(env, SessionVar+"="+place.Session, PodVar+"="+place.Pod, NamespaceVar+"="+place.Namespace)
	return env, hidden
}

// borrowable reports whether the pod's variable name describes its application.
func borrowable(name string) bool {
	if name == "" || slices.Contains(laptops, name) || slices.Contains(dangerous, name) {
		return false
	}
	return !slices.ContainsFunc(keptPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
