package launch

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hostile are values that quoting has to get right.
var hostile = []string{
	"EMPTY=", "PLAIN=a/b:c,d=e", "SPACES= two  words ", `QUOTES='a' "b" \`, "LINES=one\r\ntwo\n", "SHELL=$(touch /tmp/x) `id` $HOME ${HOME}",
	"UNICODE=grün\t☂", "HASH=#no comment", `BACKSLASHES=\\n \n \x`,
}

func TestFormats(t *testing.T) {
	t.Run("dotenv", func(t *testing.T) {
		text, err := Format("dotenv", hostile)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseDotenv(string(text))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		if diff := cmp.Diff(hostile, got); diff != "" {
			t.Errorf("read back (-want +got)\n%s", diff)
		}
	})
	t.Run("sh", func(t *testing.T) {
		text, err := Format("sh", append([]string{"not.a-shell's=1"}, hostile...))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", string(text)+"exec env -0")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range hostile {
			if !strings.Contains("\x00"+string(out), "\x00"+kv+"\x00") {
				t.Errorf("no %q in %q", kv, out)
			}
		}
	})
	t.Run("json", func(t *testing.T) {
		text, err := Format("json", hostile)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		for _, kv := range hostile {
			if name, value, _ := strings.Cut(kv, "="); got[name] != value {
				t.Errorf("%s is %q, want %q", name, got[name], value)
			}
		}
	})
	if _, err := Format("toml", nil); err == nil {
		t.Error("an unknown format is no error")
	}
}

func TestParseDotenv(t *testing.T) {
	got, err := ParseDotenv("# comment\n\n export A=1\nB = two words \nC='$x \"'\nD=\"a\\tb\"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=1", "B=two words", `C=$x "`, `D=a\tb`}, got); diff != "" {
		t.Errorf("environment (-want +got)\n%s", diff)
	}
	for text, want := range map[string]string{
		"A=1\nB": "line 2 is not NAME=VALUE", "1A=x": "line 1", "A=\"x": `no closing "`, "A='": "no closing '", `A="x"y"`: "inside", `A="x\"`: "no closing", "A=\x00": "NUL",
	} {
		if _, err := ParseDotenv(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func FuzzParseDotenv(f *testing.F) {
	f.Add("A=1\nexport B=\"x\\n\"\nC='y'\n")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := ParseDotenv(text)
		if err != nil {
			return
		}
		out, err := Format("dotenv", env)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseDotenv(string(out))
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		if diff := cmp.Diff(env, again); diff != "" {
			t.Errorf("read back (-want +got)\n%s", diff)
		}
	})
}
