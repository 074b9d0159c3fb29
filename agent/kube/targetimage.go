package kube

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// TargetImage as an AgentSpec's image starts the agent from the image of the
// container that is borrowed from. The binary is one of the spec's Binaries.
const TargetImage = "target"

// Binary is the agent's program for one architecture, in a file of this machine.
type Binary struct {
	Arch   string `json:"arch"` // as Go names it
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

// String is how the binary stands in a container's arguments.
func (b Binary) String() string { return b.Arch + ":" + strconv.FormatInt(b.Size, 10) + ":" + b.SHA256 }

// offer lists binaries as receive.sh wants them.
func offer(binaries []Binary) string {
	words := make([]string, len(binaries))
	for i, b := range binaries {
		words[i] = b.String()
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

var patternBinary = regexp.MustCompile(`^[a-z0-9]+:[1-9][0-9]*:[0-9a-f]{64}$`)

//go:embed receive.sh
var receiveScript string

// receiver is the command of an agent's container in an image that is not the
// agent's. The kubelet replaces $(NAME), and $$ by $.
func receiver() []string {
	var script strings.Builder
	for line := range strings.Lines(receiveScript) {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "#") {
			script.WriteString(line)
		}
	}
	return []string{"/bin/sh", "-c", strings.ReplaceAll(script.String(), "$", "$$"), "borrownet"}
}

// useTargetImage turns an agent's container into one whose program arrives on
// standard input. Its root cannot be read-only.
func useTargetImage(ec *api.EphemeralContainer, image string, binaries []Binary) {
	no := false
	ec.Image = image
	ec.Command = receiver()
	ec.Args = append([]string{offer(binaries)}, ec.Args...)
	ec.Stdin, ec.StdinOnce = true, true
	ec.SecurityContext.ReadOnlyRootFilesystem = &no
}

// What receive.sh says, each on a line of its own.
const (
	sayPrefix  = "borrownet: "
	saySend    = sayPrefix + "send "    // ARCH
	sayRefused = sayPrefix + "refused " // KIND [DETAIL]
)

// otherImage is the way out when the target's image will not do.
const otherImage = "use the agent's own image: --agent-image REF, which `make agent-image` builds; or name a container whose image has what is missing with -c"

// explainRefusal says in e what receive.sh said last, if it refused.
func (a *attachment) explainRefusal(e *Error, output string) {
	_, said, ok := strings.Cut(output, sayRefused)
	if !ok || !a.fromTarget() {
		return
	}
	kind, detail, _ := strings.Cut(said, " ")
	kind, detail = strings.TrimSpace(kind), oneLine(detail)
	image := fmt.Sprintf("image %q of container %s", a.image, a.target.Container)
	e.Hint = otherImage
	switch kind {
	case "tool":
		e.Reason = fmt.Sprintf("%s has no program %q, without which the agent cannot be started from it", image, detail)
	case "checker":
		e.Reason = image + " has nothing that checks the agent before it is executed: no sha256sum, shasum or openssl"
	case "dir":
		e.Reason = image + " has no directory that the agent's user may write to and execute from: $TMPDIR, /tmp, /var/tmp, /run, $HOME and the working directory were tried"
		if detail != "" {
			e.Reason = fmt.Sprintf("in %s nothing that is written can be executed: %s is mounted noexec", image, detail)
		}
	case "arch":
		e.Reason = fmt.Sprintf("the node is of architecture %s, and the client has the agent for %s only", detail, strings.Join(archs(a.spec.Binaries), ", "))
		e.Hint = "make agent-binaries in borrownet's source, put bin/borrownet-agent-linux-" + detail + " beside the client, then up again"
	case "digest":
		e.Reason = fmt.Sprintf("what arrived in container %s is not the agent: its SHA-256 is %s. It was not executed", a.target.Container, detail)
		e.Hint = "the connection broke, or the agent's file was changed meanwhile: try again"
	}
}

// explainNoShell says in e that the image has no shell, if that is what the
// node's message means, and reports whether it is.
func (a *attachment) explainNoShell(e *Error, message string) bool {
	m := strings.ToLower(message)
	if !a.fromTarget() || !strings.Contains(m, "/bin/sh") || !strings.Contains(m, "no such file") && !strings.Contains(m, "not found") {
		return false
	}
	e.Reason = fmt.Sprintf("image %q of container %s has no shell (/bin/sh), so the agent cannot be started from it", a.image, a.target.Container)
	e.Hint = otherImage
	return true
}

// fromTarget reports whether the agent is started from the target's image.
func (a *attachment) fromTarget() bool { return a.spec.Image == TargetImage }

func archs(binaries []Binary) []string {
	out := make([]string, len(binaries))
	for i, b := range binaries {
		out[i] = b.Arch
	}
	return out
}
