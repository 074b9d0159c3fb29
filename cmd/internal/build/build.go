// Package build says which build this binary is.
package build

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// Version returns linked, what the linker put into the binary, or if that is empty
// the version of the module, the commit, or "devel".
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return fromVCS(info.Settings)
}

func fromVCS(settings []debug.BuildSetting) string {
	var revision, dirty string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision[:min(12, len(revision))] + dirty
}

// Platform returns operating system, architecture and Go version.
func Platform() string {
	return strings.Join([]string{runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()}, " ")
}
