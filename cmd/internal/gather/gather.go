// Package gather makes a bundle of what helps to find out why borrownet does not
// work: one file to attach to a report. Every text in it goes through a Redactor.
package gather

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/printable"
)

// A Part is a file of the bundle.
type Part struct {
	Name string // with slashes
	// Text returns what is in it. An error is told in the bundle, beside what there is.
	Text func(ctx context.Context) (string, error)
}

// maxPart bounds a part, in bytes: of what is longer the end is kept.
const maxPart = 512 << 10

// folder is what everything in the bundle is below.
const folder = "borrownet-gather"

const about = `This was made by "borrownet gather" at %s, and is not sent anywhere by it.

What looks like a secret, and what is known to be one (values of variables with such names,
credentials of the kubeconfig, keys of sessions), stands here as [redacted]. Names stay:
of contexts, namespaces, pods, nodes, hosts and users, and addresses. Have a look before
you pass it on.

%s`

// Write writes the parts as a gzipped tar. It returns what could not be collected, a
// line each; that is in the bundle too.
func Write(ctx context.Context, w io.Writer, now time.Time, r *Redactor, parts []Part) (missing []string, err error) {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	add := func(name, text string) error {
		text = printable.Text(r.Text(text)) // people show it on terminals
		if err := out.WriteHeader(&tar.Header{Name: path.Join(folder, name), Mode: 0o600, Size: int64(len(text)), ModTime: now, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := io.WriteString(out, text)
		return err
	}
	var names []string
	for _, p := range parts {
		text, perr := p.Text(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if perr != nil {
			missing = append(missing, r.Text(fmt.Sprintf("%s: %v", p.Name, perr)))
		}
		if text == "" {
			continue
		}
		if n := len(text) - maxPart; n > 0 {
			text = "[the beginning is left out]\n" + text[n:]
		}
		names = append(names, "  "+p.Name)
		if err := add(p.Name, text); err != nil {
			return missing, fmt.Errorf("write the bundle: %w", err)
		}
	}
	list := "There is:\n" + strings.Join(names, "\n") + "\n"
	if len(missing) > 0 {
		list += "\nNot or not all of it could be had:\n  " + strings.Join(missing, "\n  ") + "\n"
	}
	for _, close := range []func() error{
		func() error { return add("README.txt", fmt.Sprintf(about, now.UTC().Format(time.RFC3339), list)) }, out.Close, zip.Close,
	} {
		if err := close(); err != nil {
			return missing, fmt.Errorf("write the bundle: %w", err)
		}
	}
	return missing, nil
}

// shown are variables whose values are of use and no secrets. Of others the names are
// told.
var shown = []string{
	"BORROWNET_AGENT_IMAGE", "BORROWNET_DEBUG", "BORROWNET_HOOK", "BORROWNET_SESSION", "HTTPS_PROXY", "HTTP_PROXY", "KUBECONFIG", "LANG", "LC_ALL", "LD_PRELOAD",
	"NO_COLOR", "NO_PROXY", "PATH", "SHELL", "TERM", "TMPDIR", "XDG_RUNTIME_DIR", "container",
}

// Environment tells names, and values of few. Values that may be secrets are made
// known to r.
func Environment(r *Redactor, env []string) string {
	var lines []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if SecretVariable(name) {
			r.Know(value)
		}
		if slices.Contains(shown, name) || slices.Contains(shown, strings.ToUpper(name)) {
			lines = append(lines, name+"="+value)
		} else {
			lines = append(lines, name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
