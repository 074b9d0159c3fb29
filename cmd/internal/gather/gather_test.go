package gather

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// planted are secrets; each has to be gone. None may be part of another text here.
var planted = []string{
	"hunter2horse", "s3cr3tValue", "eyJhbGciOi.eyJzdWIiOjEy.c2lnbmF0dXJl", "QmFzaWNDcmVk", "AKIAABCDEFGHIJKLMNOP", "ghp_abcdefghijklmnop0123",
	"MIIEvQIBADANBgkq", "urlpassword", "flagvalue77", "jsonsecret88", "knownsecret99", "envsecret00", "cookievalue11", "quoted secret 22", "escapedsecret33",
}

// letters are texts with planted secrets, as logs and status have them.
var letters = []string{
	`time=x msg="dial" password=hunter2horse next=1`,
	`{"token": "jsonsecret88", "pod": "api"}`,
	`{"log":"{\"secret\":\"escapedsecret33\"}"}`,
	"AWS_SECRET_ACCESS_KEY=s3cr3tValue",
	"Authorization: Bearer eyJhbGciOi.eyJzdWIiOjEy.c2lnbmF0dXJl",
	"token eyJhbGciOi.eyJzdWIiOjEy.c2lnbmF0dXJl stands alone",
	"header basic QmFzaWNDcmVk here",
	"id AKIAABCDEFGHIJKLMNOP and ghp_abcdefghijklmnop0123",
	"-----BEGIN RSA PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END RSA PRIVATE KEY-----\nafter the key",
	"cut off:\n-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq",
	"proxy http://user:urlpassword@gate.example.org:3128/ refused",
	"borrownet up --token flagvalue77 --pod api",
	"by itself knownsecret99 and " + base64.StdEncoding.EncodeToString([]byte("knownsecret99")),
	"the value envsecret00 of a variable",
	"Set-Cookie: cookievalue11",
	`api_key='quoted secret 22' and more`,
}

// stay has to be there yet.
var stay = []string{
	"msg=\"dial\"", "next=1", `"pod": "api"`, "stands alone", "here", "after the key", "gate.example.org:3128/ refused", "--pod api", "by itself",
	"of a variable", "and more", "finding deploy/api in namespace shop", "KUBECONFIG=/etc/jane/kubeconfig", "no such pod", "BASHRC_THING",
	"https_proxy=http://[redacted]@gate.example.org",
}

func TestBundleHasNoSecrets(t *testing.T) {
	var r Redactor
	r.Know("knownsecret99", "abc")
	env := Environment(&r, []string{"DB_PASSWORD=envsecret00", "KUBECONFIG=/etc/jane/kubeconfig", "BASHRC_THING=hunter2horse", "https_proxy=http://user:urlpassword@gate.example.org"})
	parts := []Part{
		{"log", func(context.Context) (string, error) {
			return strings.Join(letters, "\n") + "\nfinding deploy/api in namespace shop", nil
		}},
		{"environment.txt", func(context.Context) (string, error) { return env, nil }},
		{"none", func(context.Context) (string, error) { return "", errors.New("no such pod, password=hunter2horse") }},
	}
	for i, l := range letters { // and each alone: what is around a secret must not save it
		parts = append(parts, Part{fmt.Sprintf("part/%d", i), func(context.Context) (string, error) { return l, nil }})
	}
	var out bytes.Buffer
	missing, err := Write(t.Context(), &out, time.Unix(1700000000, 0), &r, parts)
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) != 1 || missing[0] != "none: no such pod, password=[redacted]" {
		t.Errorf("missing %q", missing)
	}
	files := unpack(t, &out)
	if len(files) != len(parts) {
		t.Errorf("%d files", len(files))
	}
	all := ""
	for name, text := range files {
		all += text + "\n"
		for _, secret := range planted {
			if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
				t.Errorf("%s has %q:\n%s", name, secret, text)
			}
		}
	}
	for _, want := range stay {
		if !strings.Contains(all, want) {
			t.Errorf("%q is gone:\n%s", want, files["borrownet-gather/log"])
		}
	}
}

// unpack returns the files of a bundle.
func unpack(t *testing.T, in io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o600 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		files[h.Name] = string(text)
	}
}

// TestPartIsBounded keeps the end.
func TestPartIsBounded(t *testing.T) {
	var out bytes.Buffer
	long := strings.Repeat("x", maxPart) + "the end"
	if _, err := Write(t.Context(), &out, time.Unix(0, 0), &Redactor{}, []Part{{"long", func(context.Context) (string, error) { return long, nil }}}); err != nil {
		t.Fatal(err)
	}
	if got := unpack(t, &out)["borrownet-gather/long"]; len(got) > maxPart+100 || !strings.HasSuffix(got, "the end") {
		t.Errorf("%d bytes", len(got))
	}
}

// FuzzRedact: what is known is gone whatever stands around it.
func FuzzRedact(f *testing.F) {
	for _, l := range letters {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r Redactor
		r.Know("knownsecret99")
		if got := r.Text(text + "knownsecret99" + text); strings.Contains(got, "knownsecret99") {
			t.Errorf("%q", got)
		}
	})
}
