package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
	"github.com/borrownet/borrownet/integration/lab/internal/state"
)

// module is how the checkout is recognised.
const module = "module github.com/borrownet/borrownet"

// options are what the flags and the environment say.
type options struct {
	images    []string
	checkout  string
	fresh     bool
	mesh      bool
	flux      bool
	docker    bool
	noTUN     bool
	nodeFirst bool
	nodes     int
	cmd       []string

	cache string // directory for everything that outlives a lab
}

func parse(verb string, args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprint(fs.Output(), usage) }
	fs.Func("image", "", func(s string) error {
		path, err := filepath.Abs(s)
		o.images = append(o.images, path)
		return err
	})
	fs.StringVar(&o.checkout, "checkout", "", "")
	fs.BoolVar(&o.fresh, "fresh", false, "")
	fs.BoolVar(&o.mesh, "mesh", false, "")
	fs.BoolVar(&o.flux, "flux", false, "")
	fs.BoolVar(&o.docker, "docker", false, "")
	fs.BoolVar(&o.noTUN, "no-tun", false, "")
	fs.BoolVar(&o.nodeFirst, "node-first", false, "")
	fs.IntVar(&o.nodes, "nodes", 1, "")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.cmd = fs.Args()
	if o.nodes != 1 && o.nodes != 2 {
		return nil, fmt.Errorf("--nodes %d: a lab has 1 or 2", o.nodes)
	}
	if o.nodes > 1 && o.mesh {
		return nil, errors.New("--nodes 2 and --mesh do not go together: the second node has no plugin of the mesh")
	}
	wantsCommand := verb == "run" || verb == "node"
	if wantsCommand && len(o.cmd) == 0 {
		return nil, fmt.Errorf("%s: no command to run", verb)
	}
	if !wantsCommand && len(o.cmd) > 0 {
		return nil, fmt.Errorf("%s: unexpected %q", verb, o.cmd[0])
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	o.cache = filepath.Join(cache, "borrownet-lab")
	return o, nil
}

// labs is the directory of the labs' state.
func (o *options) labs() string { return filepath.Join(o.cache, "labs") }

func (o *options) artifacts() string {
	if dir := os.Getenv("LAB_ARTIFACTS"); dir != "" {
		return dir
	}
	return filepath.Join(o.cache, "artifacts")
}

// newSpec describes a new lab in the directory of st.
func (o *options) newSpec(st *state.Lab) (spec.Spec, error) {
	s := spec.Spec{ID: st.ID, Dir: st.Dir, Cgroup: st.Cgroup(), Mesh: o.mesh, Flux: o.flux, Docker: o.docker, NodeFirst: o.nodeFirst, Nodes: o.nodes, Begun: time.Now()}
	var err error
	if s.Kit, err = kit(); err != nil {
		return s, err
	}
	if _, err := os.Stat(s.MeshKit()); o.mesh && err != nil {
		return s, fmt.Errorf("this lab was built without a mesh (run hack/lab-build.sh --mesh): %w", err)
	}
	if _, err := os.Stat(s.FluxKit()); o.flux && err != nil {
		return s, fmt.Errorf("this lab was built without Flux (run hack/lab-build.sh --flux): %w", err)
	}
	if s.Checkout, err = o.findCheckout(); err != nil {
		return s, err
	}
	if s.Images, err = o.allImages(s.Checkout); err != nil {
		return s, err
	}
	if s.GoRoot, s.ModCache, err = goDirs(); err != nil {
		return s, err
	}
	s.BuildCache = filepath.Join(o.cache, "laptop-go-build")
	if err := os.MkdirAll(s.BuildCache, 0o755); err != nil {
		return s, err
	}
	if err := os.Chown(s.BuildCache, spec.UserID, spec.UserID); err != nil {
		return s, err
	}
	s.Tools = interpreters()
	return s, nil
}

// kit is the directory of this binary, which hack/lab-build.sh fills.
func kit() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	dir := filepath.Dir(exe)
	if _, err := os.Stat(filepath.Join(dir, "hyperkube")); err != nil {
		return "", fmt.Errorf("%s is not complete (run hack/lab-build.sh): %w", dir, err)
	}
	return dir, nil
}

func (o *options) findCheckout() (string, error) {
	if o.checkout != "" {
		return filepath.Abs(o.checkout)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(b), "\n"); err == nil && line == module {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("no source tree around the working directory: name it with --checkout")
		}
	}
}

// allImages is the agent's image of the checkout, if it is built, and those of
// the flags.
func (o *options) allImages(checkout string) ([]string, error) {
	var all []string
	agent := filepath.Join(checkout, "bin", "borrownet-agent-image.tar")
	if _, err := os.Stat(agent); err == nil {
		all = append(all, agent)
	}
	for _, image := range o.images {
		if _, err := os.Stat(image); err != nil {
			return nil, err
		}
		all = append(all, image)
	}
	return all, nil
}

// goDirs returns the Go distribution and module cache of the caller, or nothing
// where there is no Go.
func goDirs() (root, modCache string, err error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("go env: %w", err)
	}
	root, modCache, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	if _, err := os.Stat(modCache); err != nil {
		modCache = ""
	}
	return root, modCache, nil
}

// interpreters returns the directories of a python3 and a node that only the
// caller has. The system's own are on the laptop anyway and are preferred: a
// version manager's shim in a home directory would not run there.
func interpreters() []string {
	var dirs []string
	for name, ask := range map[string][]string{
		"python3": {"-c", "import sys; print(sys.base_prefix)"},
		"node":    {"-p", "require('path').dirname(require('path').dirname(process.execPath))"},
	} {
		if onSystemPath(name) {
			continue
		}
		out, err := exec.Command(name, ask...).Output()
		if dir := strings.TrimSpace(string(out)); err == nil && filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func onSystemPath(name string) bool {
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}
