package launch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/view"
)

// Rules are what a person wants different in a program's environment. The zero
// value is the default.
type Rules struct {
	Set          []string // NAME=VALUE, over the laptop's and the pod's; the last of a name counts
	Take         []string // names that are taken from the pod though they are left out by default
	Unset        []string // names that the program does not get at all
	KeepIdentity bool     // the laptop's cloud identity stays
}

// Environment is what a program of a session gets, and what became of the rest.
type Environment struct {
	Env      []string // KEY=value
	Borrowed []string // of Env: the pod's, and what the rules set
	Proxies  []string // names of the laptop's that are hidden: programs go out through the pod
	Identity []string // names of the laptop's that are hidden: the program is the pod
	Excluded []string // names of the pod's that are left out
	Missing  []string // names that the rules take and the pod has not
}

// awsFiles are the variables that say where the AWS libraries look for the
// person's identity, and where they look without.
var awsFiles = map[string]string{"AWS_CONFIG_FILE": ".aws/config", "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials"}

// Compose returns the environment of a program of the session at place on a
// laptop with this one.
func Compose(laptop []string, place session.Place, rules Rules) Environment {
	var e Environment
	borrowed := e.take(place.Env, rules)
	set := map[string]string{}
	for _, kv := range rules.Set {
		if name, value, ok := strings.Cut(kv, "="); ok {
			set[name] = value
		}
	}
	gone := func(name string) bool { return slices.Contains(rules.Unset, name) }
	for _, kv := range laptop {
		name, _, _ := strings.Cut(kv, "=")
		_, isSet := set[name]
		_, isBorrowed := borrowed[name]
		switch {
		case isSet, isBorrowed, gone(name), slices.Contains(told, name):
		case isProxy(name):
			e.Proxies = append(e.Proxies, name)
		case isIdentity(name) && !rules.KeepIdentity:
			e.Identity = append(e.Identity, name)
		default:
			e.Env = append(e.Env, kv)
		}
	}
	maps.Copy(borrowed, set)
	maps.DeleteFunc(borrowed, func(name, _ string) bool { return gone(name) || slices.Contains(told, name) })
	for _, name := range slices.Sorted(maps.Keys(borrowed)) {
		e.Borrowed = append(e.Borrowed, name+"="+borrowed[name])
	}
	e.Env = append(e.Env, e.Borrowed...)
	if !rules.KeepIdentity {
		e.hideFiles()
	}
	e.Env = withoutServers(e.Env, rules.Unset)
	e.Env = append(e.Env, SessionVar+"="+place.Session, PodVar+"="+place.Pod, NamespaceVar+"="+place.Namespace)
	return e
}

// take picks the pod's variables that describe its application.
func (e *Environment) take(pod []string, rules Rules) map[string]string {
	out := map[string]string{}
	size := 0
	for _, kv := range pod {
		name, value, ok := strings.Cut(kv, "=")
		_, twice := out[name]
		if !ok || twice || !plainName.MatchString(name) || strings.HasPrefix(name, own) || strings.ContainsRune(value, 0) {
			continue
		}
		if excluded(name) && !slices.Contains(rules.Take, name) || size+len(kv) > maxEnv {
			e.Excluded = append(e.Excluded, name)
			continue
		}
		size += len(kv)
		out[name] = value
	}
	for _, name := range rules.Take {
		if _, ok := out[name]; !ok {
			e.Missing = append(e.Missing, name)
		}
	}
	return out
}

// hideFiles hides the person's files of the AWS libraries, if there are any.
func (e *Environment) hideFiles() {
	home := Lookup(e.Env, "HOME")
	for _, name := range slices.Sorted(maps.Keys(awsFiles)) {
		path := filepath.Join(home, awsFiles[name])
		if home == "" || Lookup(e.Env, name) != "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			e.Identity = append(e.Identity, "~/"+awsFiles[name])
			e.Env = append(e.Env, name+"=/dev/null")
		}
	}
}

// Redirect returns env with the values that are paths of the pod's files led to
// the copies, for programs that do not see them at their places.
func Redirect(env []string, files []view.Bind) []string {
	out := slices.Clone(env)
	for i, kv := range out {
		name, value, _ := strings.Cut(kv, "=")
		for _, f := range files {
			if rest, ok := strings.CutPrefix(value, f.Target); ok && (rest == "" || rest[0] == '/') {
				out[i] = name + "=" + f.Source + rest
			}
		}
	}
	return out
}

// Lookup returns the value of a variable in env, "" if there is none.
func Lookup(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// Adjust returns env, that of a borrowed shell, after the rules that make sense
// there: Set and Unset.
func Adjust(env []string, rules Rules) []string {
	var out []string
	for _, kv := range append(slices.Clone(env), rules.Set...) {
		name, _, _ := strings.Cut(kv, "=")
		same := func(have string) bool { return strings.HasPrefix(have, name+"=") }
		out = slices.DeleteFunc(out, same)
		if !slices.Contains(rules.Unset, name) {
			out = append(out, kv)
		}
	}
	return out
}
