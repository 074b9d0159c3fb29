package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/container"
	"github.com/borrownet/borrownet/cmd/internal/engine"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/view"
)

// defaultContainer stands for --docker without a name.
const defaultContainer = "borrownet-SESSION"

// containerName is what container engines take.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)

// dockerFlag asks for a container whose network others can join.
type dockerFlag struct{ name string }

func (d *dockerFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.name, "docker", "", "keep a container `NAME` whose network is the pod's, for others to join (docker run --network container:NAME)")
	cmd.Flags().Lookup("docker").NoOptDefVal = defaultContainer
}

// request finds the engine and gives it the image. It returns nil if no container
// is asked for.
func (d *dockerFlag) request(ctx context.Context, a *app, name string) (*session.Docker, error) {
	if d.name == "" {
		return nil, nil
	}
	if !containerName.MatchString(d.name) {
		return nil, usage("--docker "+d.name+": not the name of a container", name+" --docker=borrownet-api")
	}
	e, err := container.Find(ctx, os.Environ())
	if err != nil {
		return nil, err
	}
	a.ui.detail("loading the image into the engine at %s", e.Socket())
	image, err := loadImage(ctx, e)
	if err != nil {
		return nil, err
	}
	out := &session.Docker{Own: true, Engine: e.Socket(), Image: image}
	if d.name != defaultContainer {
		out.Name = d.name
	}
	return out, nil
}

// unloadImages removes the images that nothing uses.
func unloadImages(socket string) {
	ctx, stop := interruptible()
	defer stop()
	container.RemoveImages(ctx, engine.New(socket), "")
}

// loadImage gives the engine the image that containers of this very program need.
func loadImage(ctx context.Context, e *engine.Client) (string, error) {
	if runtime.GOOS != "linux" {
		return "", &fault.Error{Code: fault.Engine, ID: "BN2201", Op: "share a session with containers of", Object: "the engine at " + e.Socket(),
			Reason: "they are in a virtual machine, and this is " + runtime.GOOS, Hint: "run borrownet in that machine; or borrownet forward, and host.docker.internal in the containers"}
	}
	exe, err := filepath.EvalSymlinks(selfPath())
	if err != nil {
		return "", &fault.Error{Code: fault.Laptop, Op: "find this program", Reason: err.Error(), Err: err}
	}
	return container.Load(ctx, e, exe)
}

// printDockerArgs prints the arguments of docker run by which a container is all
// that the session is.
func (a *app) printDockerArgs(name string) error {
	client, dir, err := a.client()
	if err != nil {
		return err
	}
	defer dir.Remove()
	if name, err = a.pick(client, name); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	st, err := client.Status(ctx, name)
	if err != nil {
		return err
	}
	if st.Container == nil || st.Container.Name == "" {
		return &fault.Error{Code: fault.SessionExists, Op: "use session", Object: name, Reason: "it keeps no container that others can join",
			Hint: "borrownet down " + name + ", then borrownet up with --docker"}
	}
	place, err := a.place(client, name)
	if err != nil {
		return err
	}
	memory, err := dir.Memory()
	if err != nil {
		return err
	}
	file := memory.Path(session.GuestEnv(name))
	if err := a.writeDockerEnv(file, launch.Compose(nil, place, launch.Rules{}).Borrowed); err != nil {
		return err
	}
	words := []string{"--network", "container:" + st.Container.Name, "--env-file", file}
	return a.ui.raw(strings.Join(append(words, a.volumeWords(place.Files)...), " ") + "\n")
}

// oneWord is a path that every shell leaves whole in the output of a command, and docker in
// a volume. What a pod's spec calls a path may be meant to be more.
var oneWord = regexp.MustCompile(`^/[A-Za-z0-9/_.@%+,-]*$`)

// volumeWords are arguments of docker run for the pod's files.
func (a *app) volumeWords(files []view.Bind) []string {
	var words []string
	for _, f := range files {
		if !oneWord.MatchString(f.Target) {
			a.ui.warn("files of the pod at "+f.Target+" are left out: a shell would take the path apart", "")
			continue
		}
		words = append(words, "--volume", f.Source+":"+f.Target+":ro")
	}
	return words
}

// writeDockerEnv writes a file for docker's --env-file, which knows no quotes.
func (a *app) writeDockerEnv(file string, env []string) error {
	var text strings.Builder
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); strings.ContainsAny(kv, "\r\n") {
			a.ui.warn("variable "+name+" has several lines, which docker cannot read from a file", "docker run -e "+name+"=…")
			continue
		}
		text.WriteString(kv + "\n")
	}
	if err := replace(file, []byte(text.String())); err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "write the environment to", Object: file, Reason: cause(err), Err: err, Hint: "is there room? df -h " + file}
	}
	return nil
}
