// Package settings reads borrownet.yaml, which belongs to a project and stands
// in its directory: what is the same for everybody who borrows there, and the
// sessions and commands of a whole stack.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// Name is the file's name.
const Name = "borrownet.yaml"

// maxSize bounds the file, in bytes.
const maxSize = 1 << 20

// Settings are what the file says.
type Settings struct {
	AgentImage string `yaml:"agentImage"`
	Kubeconfig string `yaml:"kubeconfig"` // relative to the file
	Context    string `yaml:"context"`    // of sessions that name none
	Namespace  string `yaml:"namespace"`  // of sessions that name none
	Routing    `yaml:",inline"`
	Sessions   map[string]Service `yaml:"sessions"`

	path string // of the file
}

// Routing is what does not go through the pod. At the top of the file it is for every
// session.
type Routing struct {
	// Publish, Local, RemoteLocalhost and Metadata are values of the flags of these names, which add to them.
	Publish         []string `yaml:"publish"`
	Local           []string `yaml:"local"`
	RemoteLocalhost []uint16 `yaml:"remoteLocalhost"`
	Metadata        []string `yaml:"metadata"`
	// Hosts are the addresses of names that nobody is asked for.
	Hosts map[string]Addrs `yaml:"hosts"`
	// Redirect names Services whose calls this machine answers, and where.
	Redirect map[string]string `yaml:"redirect"`
}

// Service is a session of a stack, and what runs in it.
type Service struct {
	Pod        string `yaml:"pod"` // "" = the session's name
	Container  string `yaml:"container"`
	AgentImage string `yaml:"agentImage"`
	Kubeconfig string `yaml:"kubeconfig"`
	Context    string `yaml:"context"`
	Namespace  string `yaml:"namespace"`
	Hook       string `yaml:"hook"`
	Stay       bool   `yaml:"stay"`
	Direct     bool   `yaml:"direct"`
	Routing    `yaml:",inline"`
	Mirror     []string `yaml:"mirror"` // values of the flag

	Env     map[string]string `yaml:"env"`
	EnvFile string            `yaml:"envFile"` // relative to the file
	PodEnv  []string          `yaml:"podEnv"`
	Unset   []string          `yaml:"unset"`
	Dir     string            `yaml:"dir"` // where Command runs, relative to the file
	Command Command           `yaml:"command"`
}

// Command is what `run SERVICE` runs.
type Command []string

// Line is the command as the file has it: the words, or the line that is the shell's.
func (c Command) Line() []string {
	if len(c) == 3 && c[0] == shell[0] && c[1] == shell[1] {
		return c[2:]
	}
	return c
}

// shell runs a line.
var shell = [...]string{"/bin/sh", "-c"}

// UnmarshalYAML takes a list of words, or a line for the shell.
func (c *Command) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*c = Command{shell[0], shell[1], n.Value}
		return nil
	}
	var words []string
	if err := n.Decode(&words); err != nil || len(words) == 0 {
		return fmt.Errorf("line %d: a command is a line for the shell, or a list of words", n.Line)
	}
	*c = words
	return nil
}

// Addrs are one address, or a list of them.
type Addrs []netip.Addr

// UnmarshalYAML takes an address or a list of some.
func (a *Addrs) UnmarshalYAML(n *yaml.Node) error {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, one := range list {
		addr, err := netip.ParseAddr(one.Value)
		if err != nil {
			return fmt.Errorf("line %d: %q is not an IP address, or a list of them", one.Line, one.Value)
		}
		*a = append(*a, addr)
	}
	if len(*a) == 0 {
		return fmt.Errorf("line %d: [] is not an IP address, or a list of them", n.Line)
	}
	return nil
}

// Read reads the file at path. A missing file says nothing.
func Read(path string) (Settings, error) {
	s, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	return s, err
}

// Load reads the file at path, which must be there.
func Load(path string) (Settings, error) {
	text, err := read(path)
	s := Settings{path: path}
	if err == nil {
		err = parse(text, &s)
	}
	if err != nil {
		hint := "docs/stack.md says what it may say"
		if errors.Is(err, fs.ErrNotExist) {
			hint = "name the file of the stack: borrownet up -f " + Name
		}
		return Settings{}, &fault.Error{Code: fault.Usage, Op: "read", Object: path, Reason: reason(err), Err: err, Hint: hint}
	}
	return s, nil
}

// reason is an error without the path and the package that are said already.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
}

func parse(text []byte, s *Settings) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	if doc.Kind == 0 {
		return nil // nothing but comments
	}
	if err := check(doc.Content[0]); err != nil {
		return err
	}
	return doc.Decode(s)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("more than %d bytes", maxSize)
	}
	return text, err
}

// Beside returns a path that the file names as a path from here.
func (s Settings) Beside(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.path), path)
}

// Path is the file's, "" if there is none.
func (s Settings) Path() string { return s.path }
