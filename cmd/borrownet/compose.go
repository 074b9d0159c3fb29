package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/compose"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// composeRun is one `borrownet compose`.
type composeRun struct {
	*app
	files    compose.Files
	services []string // SERVICE=TARGET[@NAMESPACE]
	mirrors  []string // SERVICE=PORT[:LOCAL]
	target   targetFlags

	tool   compose.Tool
	client *daemon.Client
	dir    *rundir.Dir
	list   []*borrowing
}

// borrowing is a service of the file that borrows a pod.
type borrowing struct {
	name, ref, namespace string
	session              string
	mirror               []string // PORT[:LOCAL]
}

func (a *app) compose() *cobra.Command {
	c := &composeRun{app: a}
	cmd := &cobra.Command{
		Use: "compose [-f FILE] --service SERVICE=TARGET … COMMAND [ARG...]", Short: "run a compose file, some of whose services are pods",
		Long: composeLong, Example: composeExample, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return c.start(args, cmd.CommandPath()) },
	}
	c.addFlags(cmd)
	return cmd
}

func (c *composeRun) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false) // flags after the command are the compose tool's
	f.StringArrayVarP(&c.files.Files, "file", "f", nil, "compose `FILE`; may be repeated")
	f.StringVarP(&c.files.Project, "project-name", "p", "", "`NAME` of the project")
	f.StringVar(&c.files.Directory, "project-directory", "", "`DIR` that paths in the files are relative to")
	f.StringArrayVar(&c.files.Profiles, "profile", nil, "`NAME` of a profile to enable; may be repeated")
	f.StringVar(&c.files.EnvFile, "env-file", "", "`FILE` with variables of the compose file")
	f.StringArrayVar(&c.services, "service", nil, "`SERVICE=TARGET` that a service borrows, SERVICE=TARGET@NAMESPACE in another namespace; may be repeated")
	f.StringArrayVar(&c.mirrors, "mirror", nil, "`SERVICE=PORT[:LOCAL]`: copy what the service's pod gets on PORT to port LOCAL of the service (default: the same number); may be repeated")
	c.target.mirror.selection.add(cmd, "mirror-")
	c.target.addAgent(cmd)
	c.target.routing.add(cmd)
	c.target.addKube(cmd)
}

// starting are the compose commands that start containers, and so need sessions.
var starting = []string{"up", "create", "run", "start", "restart"}

// start runs one command of the compose tool.
func (c *composeRun) start(args []string, name string) (err error) {
	if len(args) == 0 {
		return usage("no command for the compose tool is given", name+" --service web=api up -d")
	}
	if err := c.parse(args, name); err != nil {
		return err
	}
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		return usage("this shell is borrowed already, by session "+outer, "leave it with exit first, or use another terminal")
	}
	ctx, stop := interruptible()
	defer stop()
	if c.tool, err = compose.FindTool(ctx); err != nil {
		return err
	}
	file, err := c.tool.Config(ctx, c.files)
	if err != nil {
		return err
	}
	if err := c.identify(file, name); err != nil {
		return err
	}
	if c.client, c.dir, err = c.app.client(); err != nil {
		return err
	}
	defer c.dir.Remove()
	image := ""
	if slices.Contains(starting, args[0]) || args[0] == "config" {
		if _, err := c.dir.Memory(); err != nil { // before a pod is borrowed in vain
			return err
		}
		if image, err = c.prepare(ctx); err != nil {
			return err
		}
	}
	if slices.Contains(starting, args[0]) {
		if err := c.borrowPods(ctx, name); err != nil {
			return err
		}
	}
	text, err := c.rewrite(ctx, file, image)
	if err != nil {
		return err
	}
	if args[0] == "config" && len(args) == 1 {
		return c.ui.raw(string(text))
	}
	stop() // from now on signals are the tool's
	code, err := c.use(text, args)
	if err == nil && code == 0 && args[0] == "down" {
		return c.giveBack()
	}
	if err == nil && code != 0 {
		c.blame()
		err = exitError{code}
	}
	return err
}

// serviceFlag is what --service takes.
var serviceFlag = regexp.MustCompile(`^([a-zA-Z0-9][a-zA-Z0-9._-]*)=([^=@\s]+?)(?:@([a-z0-9-]+))?$`)

// parse checks what can be checked without the file.
func (c *composeRun) parse(args []string, name string) error {
	if len(c.services) == 0 {
		return usage("no service is to borrow a pod", name+" --service web=api "+strings.Join(args, " "))
	}
	for _, text := range c.services {
		m := serviceFlag.FindStringSubmatch(text)
		if m == nil {
			return usage(fmt.Sprintf("--service %q: not SERVICE=TARGET", text), name+" --service web=deploy/api@shop")
		}
		if slices.ContainsFunc(c.list, func(b *borrowing) bool { return b.name == m[1] }) {
			return usage("service "+m[1]+" is named twice", name+" --service "+text)
		}
		c.list = append(c.list, &borrowing{name: m[1], ref: m[2], namespace: m[3]})
	}
	if err := c.parseMirrors(name); err != nil {
		return err
	}
	for i, arg := range args {
		scaled, ok := strings.CutPrefix(arg, "--scale=")
		if !ok && arg == "--scale" && i+1 < len(args) {
			scaled, ok = args[i+1], true
		}
		service, count, _ := strings.Cut(scaled, "=")
		if ok && count != "0" && count != "1" && slices.ContainsFunc(c.list, func(b *borrowing) bool { return b.name == service }) {
			return usage("service "+service+" cannot be scaled: a pod's network can be had once", "leave out --scale "+scaled)
		}
	}
	return nil
}

// parseMirrors gives each service its own.
func (c *composeRun) parseMirrors(name string) error {
	if len(c.mirrors) == 0 && c.target.mirror.selection.asked() {
		return usage("--mirror-... without --mirror", name+" --service web=api --mirror web=8080")
	}
	for _, text := range c.mirrors {
		service, ports, ok := strings.Cut(text, "=")
		if !ok {
			return usage(fmt.Sprintf("--mirror %q: not SERVICE=PORT", text), name+" --service web=api --mirror web=8080")
		}
		i := slices.IndexFunc(c.list, func(b *borrowing) bool { return b.name == service })
		if i < 0 {
			return usage("--mirror "+text+": service "+service+" borrows no pod", name+" --service "+service+"=TARGET --mirror "+text)
		}
		c.list[i].mirror = append(c.list[i].mirror, ports)
	}
	return nil
}

// identify finds the project's name, and with it those of the sessions.
func (c *composeRun) identify(file []byte, name string) (err error) {
	if c.files.Project == "" {
		c.files.Project = compose.Project(file)
	}
	if c.files.Project, err = compose.ProjectName(c.files, os.Getenv("COMPOSE_PROJECT_NAME")); err != nil {
		return err
	}
	known, err := compose.Services(file)
	if err != nil {
		return err
	}
	for _, s := range c.list {
		if !slices.Contains(known, s.name) {
			return usage("there is no service "+s.name+" in the compose file", "its services are "+strings.Join(known, ", "))
		}
		s.session = strings.NewReplacer("_", "-").Replace(strings.ToLower(c.files.Project + "-" + s.name))
		if !sessionName.MatchString(s.session) {
			return usage("project "+c.files.Project+" and service "+s.name+" make no name for a session: 63 letters and digits at most", name+" -p shop")
		}
	}
	return nil
}
