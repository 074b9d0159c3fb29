//go:build docker

package containers

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stack is a compose file as somebody has it who knows nothing of borrownet.
const stack = `version: "3.8"
services:
  web:
    image: ` + caller + `
    ports: ["18090:8080"]
    environment: {MODE: local}
    depends_on:
      db: {condition: service_healthy}
    healthcheck: &alive
      test: [CMD, /caller, get, "http://127.0.0.1:8080/"]
      interval: 1s
      retries: 60
    restart: unless-stopped
  worker:
    image: ` + busybox + `
    command: [sleep, "600"]
    depends_on: [web]
    environment: ["APP_NAME=mine"]
    stop_grace_period: 1s
  cache:
    image: ` + busybox + `
    command: [sleep, "600"]
    stop_grace_period: 1s
  db:
    image: ` + caller + `
    healthcheck: *alive
`

// composeTools are the compose tools, by what a person types.
var composeTools = map[string]func(*place){
	"docker-compose": func(*place) {}, // Debian's, which is 1.29
	"docker compose": (*place).installCompose,
}

// installCompose gives the user Compose v2, as a plugin of the docker command.
func (p *place) installCompose() {
	p.t.Helper()
	plugins := filepath.Join(p.dir, ".docker", "cli-plugins")
	program, err := os.ReadFile(filepath.Join(bins, "docker-compose"))
	if err == nil {
		err = os.MkdirAll(plugins, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(plugins, "docker-compose"), program, 0o755)
	}
	if err == nil {
		err = os.Chown(filepath.Dir(plugins), user, user) // the docker command writes there, too
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if said := p.must("docker", "compose", "version", "--short"); !strings.HasPrefix(strings.TrimPrefix(said, "v"), "2.") {
		p.t.Fatalf("docker compose is %s", said)
	}
}

// composePlace has a project with a file.
func composePlace(t *testing.T, file string) (p *place, compose func(words ...string) []string) {
	t.Helper()
	p = newPlace(t)
	p.wd = filepath.Join(p.dir, "stack")
	if err := os.Mkdir(p.wd, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.wd, "docker-compose.yml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	compose = func(words ...string) []string {
		return append([]string{p.bin, "compose", "--context", "demo", "--service", "web=api", "--service", "worker=deploy/ledger@shop"}, words...)
	}
	t.Cleanup(func() {
		p.run(compose("down", "-t", "1")...)
		p.run(p.bin, "down", "--all")
	})
	return p, compose
}

// TestCompose runs a stack of two services that are pods and two that are not.
func TestCompose(t *testing.T) {
	for tool, install := range composeTools {
		t.Run(tool, func(t *testing.T) { testCompose(t, install) })
	}
}

func testCompose(t *testing.T, install func(*place)) {
	p, compose := composePlace(t, stack)
	install(p)
	p.must(compose("up", "-d")...)
	// As compose exec, but for a start of Python.
	in := func(service string, words ...string) []string {
		return append([]string{"docker", "exec", p.containerOf(service)}, words...)
	}
	p.must(compose("exec", "-T", "web", "/caller", "get", "http://orders/")...)
	if got := decodeSeen(t, p.must(in("web", "/caller", "get", "http://orders/")...)); got.App != "orders" || !strings.HasPrefix(got.Remote, "192.0.2.10:") {
		t.Errorf("web at orders: %+v", got)
	}
	if got := decodeSeen(t, p.must(in("worker", "caller", "get", "http://orders/")...)); got.App != "orders" || !strings.HasPrefix(got.Remote, "192.0.2.22:") {
		t.Errorf("worker at orders: %+v", got)
	}
	// Names of the file are the file's, whichever way.
	for _, pair := range [][2]string{{"web", "db"}, {"cache", "web"}, {"db", "web"}, {"worker", "web"}, {"cache", "db"}} {
		program := map[string]string{"web": "/caller", "db": "/caller"}[pair[0]]
		if program == "" {
			program = "caller"
		}
		if got := decodeSeen(t, p.must(in(pair[0], program, "get", "http://"+pair[1]+":8080/")...)); got.App != "caller" {
			t.Errorf("%s at %s: %+v", pair[0], pair[1], got)
		}
	}
	if got := decodeSeen(t, p.must(p.caller, "get", "http://127.0.0.1:18090/")); got.App != "caller" {
		t.Errorf("the laptop at web: %+v", got)
	}
	p.must(in("cache", "/bin/busybox", "wget", "-q", "-O-", "http://web:8080/")...)
	for _, url := range []string{"http://orders/", "http://198.51.100.21/"} {
		if said, code := p.run(in("cache", "/bin/busybox", "wget", "-q", "-O-", url)...); code == 0 {
			t.Errorf("cache reaches the cluster at %s:\n%s", url, said)
		}
	}
	env := p.must(in("worker", "/bin/busybox", "env")...)
	if !strings.Contains(env, "APP_NAME=mine\n") || !strings.Contains(env, "LEDGER_SERVICE_HOST=198.51.100.22\n") {
		t.Errorf("environment of worker:\n%s", env)
	}
	if said := p.must(compose("logs", "web")...); !strings.Contains(said, "web") {
		t.Errorf("logs:\n%s", said)
	}
	if said := p.must(p.bin, "status", "stack-web"); !strings.Contains(said, "containers  joined, device tun, network ") {
		t.Errorf("status:\n%s", said)
	}

	p.noneOnDisk("198.51.100.22") // of the pod's environment
	before := p.must("docker", "ps", "-q", "--no-trunc")
	p.must(compose("up", "-d")...)
	if after := p.must("docker", "ps", "-q", "--no-trunc"); after != before {
		t.Errorf("up twice makes containers anew:\n%s\n%s", before, after)
	}
	p.must(compose("up", "-d", "--scale", "cache=2")...)
	if got := strings.Count(p.must(compose("ps", "-q", "cache")...), "\n"); got != 2 {
		t.Errorf("%d containers of cache", got)
	}

	p.must(compose("down", "-t", "1")...)
	if left := p.must("docker", "ps", "-aq"); left != "" {
		t.Errorf("left: %s", left)
	}
	p.fails(30, nil, p.bin, "status")
	p.nothingLeft()
}

// TestComposeConfig prints the file and uses it without borrownet.
func TestComposeConfig(t *testing.T) {
	for tool, install := range composeTools {
		t.Run(tool, func(t *testing.T) { testComposeConfig(t, tool, install) })
	}
}

func testComposeConfig(t *testing.T, tool string, install func(*place)) {
	p, compose := composePlace(t, stack)
	install(p)
	alone := func(file string, words ...string) []string {
		return append(append(strings.Fields(tool), "-p", "stack", "-f", file), words...)
	}
	p.must(compose("up", "-d", "web", "worker")...)
	file := p.must(compose("config")...)
	if !regexp.MustCompile(`(?m)^  borrownet-web:$`).MatchString(file) || !strings.Contains(file, "network_mode: service:borrownet-web") && !strings.Contains(file, `network_mode: "service:borrownet-web"`) {
		t.Fatalf("printed:\n%s", file)
	}
	name := filepath.Join(p.dir, "whole.yml")
	if err := os.WriteFile(name, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	before := p.must("docker", "ps", "-q", "--no-trunc")
	p.must(alone(name, "up", "-d", "web", "worker")...)
	if after := p.must("docker", "ps", "-q", "--no-trunc"); after != before {
		t.Errorf("it is another file:\n%s\n%s", before, after)
	}
	if got := decodeSeen(t, p.must(alone(name, "exec", "-T", "web", "/caller", "get", "http://orders/")...)); got.App != "orders" {
		t.Errorf("web at orders: %+v", got)
	}
}

// TestComposeErrors checks what a person reads.
func TestComposeErrors(t *testing.T) {
	p, compose := composePlace(t, "version: '3.8'\nservices:\n  web: {image: "+caller+"}\n  worker: {image: "+busybox+"}\n"+
		"networks:\n  default:\n    ipam:\n      config: [{subnet: 198.51.100.0/24}]\n")
	out, code := p.run(compose("up", "-d")...)
	if code == 0 || !strings.Contains(out, "it hides the cluster's 198.51.100.") || !strings.Contains(out, "hint: give the network another subnet") {
		t.Errorf("a network that hides the cluster: exit code %d\n%s", code, out)
	}
	p.must(compose("down", "-t", "1")...)
	p.nothingLeft()

	taken, err := net.Listen("tcp", "127.0.0.1:18091")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.file("version: '3.8'\nservices:\n  web: {image: " + caller + ", ports: ['127.0.0.1:18091:8080']}\n  worker: {image: " + busybox + "}\n")
	if out, code := p.run(compose("up", "-d")...); code == 0 || !strings.Contains(out, "18091") {
		t.Errorf("a port that is taken: exit code %d\n%s", code, out)
	}
	p.must(compose("down", "-t", "1")...)
	for _, tt := range []struct {
		argv []string
		want []string
	}{
		{[]string{p.bin, "compose", "up"}, []string{"error: no service is to borrow a pod", "hint: borrownet compose --service web=api up"}},
		{[]string{p.bin, "compose", "--service", "web", "up"}, []string{`error: --service "web": not SERVICE=TARGET`, "hint: "}},
		{[]string{p.bin, "compose", "--service", "nosuch=api", "up"}, []string{"error: there is no service nosuch in the compose file", "hint: its services are web, worker"}},
		{[]string{p.bin, "compose", "--service", "web=api", "up", "--scale", "web=2"}, []string{"error: service web cannot be scaled", "hint: "}},
		{[]string{p.bin, "compose", "--service", "web=api"}, []string{"error: no command for the compose tool", "hint: "}},
		{[]string{p.bin, "compose", "-f", "nosuch.yml", "--service", "web=api", "up"}, []string{"error: read the compose file: ", "hint: docker-compose -f nosuch.yml config"}},
	} {
		p.fails(2, tt.want, tt.argv...)
	}
	p.nothingLeft()
}

// file replaces the project's file.
func (p *place) file(text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.wd, "docker-compose.yml"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}
