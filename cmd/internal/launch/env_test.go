package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/view"
)

func TestCompose(t *testing.T) {
	place := session.Place{Session: "api", Pod: "api-1", Namespace: "shop", Env: []string{
		"GREETING=hello", "PATH=/pod/bin", "HOME=/", "KUBERNETES_SERVICE_HOST=192.0.2.1", "HTTP_PROXY=http://pod.example.org", "JAVA_HOME=/opt/java",
		"LD_PRELOAD=/evil.so", "BASH_ENV=/evil", "XDG_DATA_HOME=/x", "LC_ALL=C", "GIT_SSH_COMMAND=evil", "BORROWNET_SESSION=evil", "BORROWNET_AGENT_IMAGE=evil", "PYTHONPATH=/evil",
		"BASH_FUNC_ls%%=() { evil; }", "novalue", "NUL=a\x00b", "GREETING=twice", "DB=pod", "NODE_OPTIONS=--require /evil.js", "AWS_ROLE_ARN=arn:pod",
		"X\x1b[2J=y", "=z",
	}}
	laptop := []string{
		"PATH=/bin", "HOME=/nonexistent", "DB=laptop", "https_proxy=http://laptop.example.org", "NO_PROXY=x", "BORROWNET_POD=old", "BORROWNET_AGENT_IMAGE=a:1",
		"AWS_PROFILE=me", "AWS_ROLE_ARN=arn:me", "AZURE_CLIENT_ID=me", "GOOGLE_APPLICATION_CREDENTIALS=/me", "AWS_REGION=eu-west-1",
	}
	session := []string{"MVND_NO_DAEMON=true", "NX_DAEMON=false", "DISABLE_SPRING=1", "GRADLE_OPTS=-Dorg.gradle.daemon=false",
		"BORROWNET_SESSION=api", "BORROWNET_POD=api-1", "BORROWNET_NAMESPACE=shop"}
	excluded := []string{"PATH", "HOME", "HTTP_PROXY", "JAVA_HOME", "LD_PRELOAD", "BASH_ENV", "XDG_DATA_HOME", "LC_ALL", "GIT_SSH_COMMAND", "PYTHONPATH", "NODE_OPTIONS"}
	less := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(excluded), func(n string) bool { return slices.Contains(names, n) })
	}
	borrowed := []string{"AWS_ROLE_ARN=arn:pod", "DB=pod", "GREETING=hello", "KUBERNETES_SERVICE_HOST=192.0.2.1"}
	proxies, identity := []string{"https_proxy", "NO_PROXY"}, []string{"AWS_PROFILE", "AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS"}
	for _, tt := range []struct {
		name  string
		rules Rules
		want  Environment
	}{
		{"default", Rules{}, Environment{
			Env:      slices.Concat([]string{"PATH=/bin", "HOME=/nonexistent", "BORROWNET_AGENT_IMAGE=a:1", "AWS_REGION=eu-west-1"}, borrowed, session),
			Borrowed: borrowed, Proxies: proxies, Identity: identity, Excluded: excluded,
		}},
		{"rules", Rules{
			Set: []string{"GREETING=mine", "NEW=1", "NEW=2", "BORROWNET_SESSION=evil", "PATH=/other"}, Unset: []string{"DB", "AWS_REGION", "NEW2"},
			Take: []string{"JAVA_HOME", "NOT_THERE", "BORROWNET_SESSION"}, KeepIdentity: true,
		}, Environment{
			Env: slices.Concat([]string{"HOME=/nonexistent", "BORROWNET_AGENT_IMAGE=a:1", "AWS_PROFILE=me", "AZURE_CLIENT_ID=me", "GOOGLE_APPLICATION_CREDENTIALS=/me",
				"AWS_ROLE_ARN=arn:pod", "GREETING=mine", "JAVA_HOME=/opt/java", "KUBERNETES_SERVICE_HOST=192.0.2.1", "NEW=2", "PATH=/other"}, session),
			Borrowed: []string{"AWS_ROLE_ARN=arn:pod", "GREETING=mine", "JAVA_HOME=/opt/java", "KUBERNETES_SERVICE_HOST=192.0.2.1", "NEW=2", "PATH=/other"},
			Proxies:  proxies, Excluded: less("JAVA_HOME"), Missing: []string{"NOT_THERE", "BORROWNET_SESSION"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Compose(laptop, place, tt.rules)); diff != "" {
				t.Errorf("environment (-want +got)\n%s", diff)
			}
		})
	}
}

// TestExcluded: the names that break what runs here, and those by which a pod would run
// code here.
func TestExcluded(t *testing.T) {
	for _, name := range []string{
		"PATH", "HOME", "JAVA_HOME", "JAVA_TOOL_OPTIONS", "JAVA_ANYTHING", "LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "BASH_FUNC_x", "NODE_OPTIONS", "PYTHONSTARTUP", "PYTHONPATH",
		"GIT_SSH_COMMAND", "HTTP_PROXY", "all_proxy", "npm_config_script_shell", "Npm_Config_script_shell", "MAKEFLAGS", "TAR_OPTIONS", "CARGO_HOME", "PIP_INDEX_URL", "NPM_CONFIG_NODE_OPTIONS", "PERL5OPT", "RUBYOPT", "LUA_INIT", "MAVEN_OPTS", "PROMPT_COMMAND",
	} {
		if !excluded(name) {
			t.Errorf("%s is taken from pods", name)
		}
	}
	for _, name := range []string{"DATABASE_URL", "PATHS", "HOMEPAGE", "JAVA", "GITHUB_TOKEN", "AWS_ROLE_ARN", "KUBERNETES_SERVICE_HOST", "PROXY"} {
		if excluded(name) {
			t.Errorf("%s is not taken from pods", name)
		}
	}
	// What is told of them is all there is.
	list := Excluded()
	if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
		t.Errorf("not sorted, or some twice: %q", list)
	}
	for _, name := range list {
		if !excluded(strings.ReplaceAll(name, "*", "X")) {
			t.Errorf("%s is taken from pods", name)
		}
	}
}

// The AWS libraries find nothing of the person's in files either.
func TestComposeHidesFiles(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	laptop := []string{"HOME=" + home}
	e := Compose(laptop, session.Place{}, Rules{})
	if !slices.Contains(e.Env, "AWS_SHARED_CREDENTIALS_FILE=/dev/null") || slices.Contains(e.Env, "AWS_CONFIG_FILE=/dev/null") {
		t.Errorf("environment %q", e.Env)
	}
	if diff := cmp.Diff([]string{"~/.aws/credentials"}, e.Identity); diff != "" {
		t.Errorf("hidden (-want +got)\n%s", diff)
	}
	pod := session.Place{Env: []string{"AWS_SHARED_CREDENTIALS_FILE=/secrets/aws"}}
	if e := Compose(laptop, pod, Rules{}); Lookup(e.Env, "AWS_SHARED_CREDENTIALS_FILE") != "/secrets/aws" {
		t.Errorf("environment %q", e.Env)
	}
	if e := Compose(laptop, session.Place{}, Rules{KeepIdentity: true}); Lookup(e.Env, "AWS_SHARED_CREDENTIALS_FILE") != "" {
		t.Errorf("environment %q", e.Env)
	}
}

func TestComposeIsBounded(t *testing.T) {
	place := session.Place{}
	for range 8 {
		place.Env = append(place.Env, "V"+strings.Repeat("x", len(place.Env))+"="+strings.Repeat("y", 100<<10))
	}
	e := Compose(nil, place, Rules{})
	size := 0
	for _, kv := range e.Env {
		size += len(kv)
	}
	if size > maxEnv+1024 || len(e.Excluded) != 3 {
		t.Errorf("%d bytes, %d left out", size, len(e.Excluded))
	}
}

func TestRedirect(t *testing.T) {
	files := []view.Bind{{Source: "/run/user/1/a", Target: "/var/run/secrets/x"}, {Source: "/run/user/1/b", Target: "/config"}}
	got := Redirect([]string{"TOKEN=/var/run/secrets/x/token", "DIR=/config", "OTHER=/configuration", "TEXT=see /config", "EMPTY="}, files)
	want := []string{"TOKEN=/run/user/1/a/token", "DIR=/run/user/1/b", "OTHER=/configuration", "TEXT=see /config", "EMPTY="}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got)\n%s", diff)
	}
}

func TestAdjust(t *testing.T) {
	got := Adjust([]string{"A=1", "B=2", "C=3"}, Rules{Set: []string{"B=x", "D=4"}, Unset: []string{"C", "D"}})
	if diff := cmp.Diff([]string{"A=1", "B=x"}, got); diff != "" {
		t.Errorf("environment (-want +got)\n%s", diff)
	}
}
