// Package view gives one command a file system and a host name that differ from
// the machine's: directories of the session appear, read-only, at paths of the
// pod, in a mount namespace that the command and its children alone are in.
// Nothing changes for anybody else, and static binaries see it too.
//
// The command's first process is started with the attributes that Attr returns,
// and calls Enter before it becomes the command.
package view

import (
	"path"
	"slices"
	"strings"
	"unicode"
)

// View is what is different. The zero View differs in nothing.
type View struct {
	Binds    []Bind `json:"binds,omitempty"`
	Scratch  string `json:"scratch,omitempty"`  // an empty directory, to build in; needed if there are binds
	Hostname string `json:"hostname,omitempty"` // "" = the machine's
	// Own are directories of configuration whose files become the user's own, if
	// there are binds and files of others seem to be nobody's. Missing ones are fine.
	Own []string `json:"own,omitempty"`
}

// Guarded are the directories of what ssh's configuration includes. It refuses files
// that are neither root's nor the user's, and root's seem to be nobody's here.
func Guarded() []string { return []string{"/etc/ssh/ssh_config.d", "/etc/crypto-policies/back-ends"} }

// Bind is a directory that appears at another path.
type Bind struct {
	Source string `json:"source"` // an existing directory
	Target string `json:"target"` // absolute; need not exist
}

// Empty reports whether the view differs in nothing.
func (v View) Empty() bool { return len(v.Binds) == 0 && v.Hostname == "" }

// refused are directories that a pod has no business in on a laptop: what the
// machine runs and is configured by, what the kernel makes, and people's files.
var refused = []string{"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc", "/home", "/root", "/proc", "/sys", "/dev", "/boot", "/tmp", "/var/tmp"}

// kernels are those of refused whose content is the kernel's.
var kernels = []string{"/proc", "/sys", "/dev"}

// Refuses says why nothing may appear at target, or "". asked are the targets that a
// person wants all the same: below directories of the machine, but not in their place.
func Refuses(target string, asked []string) string {
	switch {
	case !path.IsAbs(target) || path.Clean(target) != target || strings.ContainsFunc(target, unicode.IsControl):
		return "it is no clean absolute path"
	case target == "/":
		return "it would hide this machine's whole file system"
	}
	i := slices.IndexFunc(refused, func(dir string) bool { return target == dir || strings.HasPrefix(target, dir+"/") })
	switch {
	case i < 0:
		return ""
	case target == refused[i] || slices.Contains(kernels, refused[i]):
		return "it would hide this machine's " + refused[i]
	case slices.Contains(asked, target):
		return ""
	}
	return "it would change this machine's " + refused[i] + "; up --pod-mount " + target + " takes it all the same"
}
