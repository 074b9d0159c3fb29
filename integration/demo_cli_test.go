//go:build !lab

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asSelf runs f as this user alone.
func asSelf(t *testing.T, f func(t *testing.T, p *demoPlace)) {
	as(t, map[string]int{"self": os.Getuid()}, f)
}

// TestDemoIsListed looks at what can be borrowed, and completes names of it.
func TestDemoIsListed(t *testing.T) {
	asSelf(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		said := p.must("ls", "--context", "demo")
		for _, want := range []string{
			`(?m)^context demo, namespace shop, `, `(?m)^deploy/api +1/1 +- +yes +you \(session api\)$`, `(?m)^deploy/ledger +1/1 +- +yes +-$`,
		} {
			if !regexp.MustCompile(want).MatchString(said) {
				t.Errorf("ls does not say %q:\n%s", want, said)
			}
		}
		var list struct {
			Targets []struct {
				Ref       string
				PodNames  []string
				Borrowers []struct{ Session, State string }
			}
		}
		if err := json.Unmarshal([]byte(p.must("ls", "--context", "demo", "-o", "json")), &list); err != nil || len(list.Targets) != 3 {
			t.Fatalf("ls -o json: %v, %+v", err, list)
		}
		if b := list.Targets[0].Borrowers; len(b) != 1 || b[0].Session != "api" || b[0].State != "borrowed" {
			t.Errorf("who borrows the first: %+v", list.Targets[0])
		}
		for _, tt := range []struct {
			args []string
			want string
		}{
			{[]string{"up", "--context", "demo", "--pod", ""}, "deploy/ledger\n"},
			{[]string{"up", "--context", "demo", "--pod", ""}, list.Targets[0].PodNames[0] + "\n"},
			{[]string{"up", "--context", "demo", "-n", ""}, "shop\n"},
			{[]string{"up", "--context", ""}, "demo\n"},
			{[]string{"up", "--context", "demo", "--pod", "deploy/api", "-c", ""}, "app\n"},
			{[]string{"up", "--hook", ""}, "preload-relay\n"},
			{[]string{"run", "--session", ""}, "api\tshop/" + list.Targets[0].PodNames[0] + "\n"},
			{[]string{"down", ""}, "api\t"},
			{[]string{"status", "-o", ""}, "wide\n"},
		} {
			if said := p.must(append([]string{"__complete"}, tt.args...)...); !strings.Contains(said, tt.want) {
				t.Errorf("completion of %q lacks %q:\n%s", tt.args, tt.want, said)
			}
		}
		if said := p.must("status", "-o", "wide"); !regexp.MustCompile(`(?m)^SESSION +STATE +CONTEXT .*\napi +ready +demo +shop +api-`).MatchString(said) {
			t.Errorf("status -o wide:\n%s", said)
		}
		p.must("down")
		// The world notices a moment later that the session's carriers are gone.
		parked := regexp.MustCompile(`(?m)^deploy/api +1/1 +- +yes +key .{8} \(parked\)$`)
		said = p.must("ls", "--context", "demo")
		for end := time.Now().Add(time.Minute); !parked.MatchString(said); said = p.must("ls", "--context", "demo") {
			if time.Now().After(end) {
				t.Fatalf("after down:\n%s", said)
			}
			<-time.After(50 * time.Millisecond)
		}
		if said, code := p.run("ls", "--context", "demo", "-n", "nosuch"); code != 11 && code != 10 || !strings.Contains(said, "there is no namespace nosuch") {
			t.Errorf("exit code %d, %s", code, said)
		}
		k.end()
	})
}

// doors starts `borrownet forward` and returns the addresses that it serves.
func (p *demoPlace) doors(n int, args ...string) (cmd *exec.Cmd, at []string, said *bufio.Reader) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	p.t.Cleanup(cancel)
	cmd = p.command(ctx, append([]string{"forward"}, args...)...)
	out, err := cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said = bufio.NewReader(out)
	for len(at) < n {
		line, err := said.ReadString('\n')
		if err != nil {
			p.t.Fatalf("forward %q ends: %v, %s", args, err, line)
		}
		at = append(at, regexp.MustCompile(`^127\.0\.0\.1:[0-9]+`).FindString(line))
		if at[len(at)-1] == "" {
			p.t.Fatalf("forward %q says %s", args, line)
		}
	}
	return cmd, at, said
}

// TestForward reaches the demo's Services from programs that are not wrapped, also
// where user namespaces are forbidden.
func TestForward(t *testing.T) {
	users := map[string]int{"self": os.Getuid(), "confined": os.Getuid()}
	if os.Getuid() == 0 {
		users["confined"] = demoUser
	}
	as(t, users, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		cmd, at, said := p.doors(4, "0:orders:80", "0:ledger:81", "--socks5", "0", "--http-proxy", "0")
		if said := p.must("demo", "call", "http://"+at[0]); !strings.Contains(said, `"remote": "192.0.2.10:`) {
			t.Errorf("orders did not see the pod:\n%s", said)
		}
		if p.uid == os.Getuid() && !p.confined {
			p.useForwards(at, said)
		}
		p.strangerIsRefused(at[0], said)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, said)
		if err := cmd.Wait(); err != nil {
			t.Errorf("forward: %v", err)
		}
		p.must("down")
		if said, code := p.run("forward", "0:orders:80"); code != 30 || !strings.Contains(said, "none is up") {
			t.Errorf("without a session: exit code %d, %s", code, said)
		}
		k.end()
	})
}

// useForwards makes calls from this process: by a port, by one that leads nowhere,
// and by both proxies.
func (p *demoPlace) useForwards(at []string, said *bufio.Reader) {
	p.t.Helper()
	for name, c := range map[string]struct{ proxy, url string }{
		"port":  {"", "http://" + at[0]},
		"socks": {"socks5h://" + at[2], "http://orders"},
		"http":  {"http://" + at[3], "http://orders.shop"},
	} {
		tr := &http.Transport{DisableKeepAlives: true}
		if c.proxy != "" {
			u, err := url.Parse(c.proxy)
			if err != nil {
				p.t.Fatal(err)
			}
			tr.Proxy = http.ProxyURL(u)
		}
		resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get(c.url)
		if err != nil {
			p.t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(text), `"remote": "192.0.2.10:`) {
			p.t.Errorf("%s: orders did not see the pod:\n%s", name, text)
		}
	}
	c, err := net.Dial("tcp", at[1])
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("a refused connection ends with %v, want a reset", err)
	}
	p.hears(said, at[1]+": connect to ledger:81: connection refused")
}

// hears waits for a line.
func (p *demoPlace) hears(said *bufio.Reader, want string) {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := said.ReadString('\n')
		all.WriteString(line)
		if strings.Contains(line, want) {
			return
		}
		if err != nil {
			p.t.Fatalf("it does not say %q: %v\n%s", want, err, all.String())
		}
	}
}

// strangerIsRefused connects as another user, which takes root.
func (p *demoPlace) strangerIsRefused(at string, said *bufio.Reader) {
	p.t.Helper()
	if os.Getuid() != 0 {
		return // forward's own tests take this process for somebody else
	}
	stranger := 1002
	cmd := exec.CommandContext(p.t.Context(), p.bin, "demo", "call", "http://"+at)
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=/nonexistent", "XDG_RUNTIME_DIR=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(stranger), Gid: uint32(stranger)}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		return // this root may not be somebody else
	}
	if err == nil {
		p.t.Errorf("another user is served:\n%s", out)
	}
	p.hears(said, "was refused: it is of user ")
}
