package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const tree = `{"path":"x","short":"does x","long":"First line\nand second.\n\n  $ x --now\n\n.leading dot, back\\slash",
"commands":[{"path":"x y","usage":"x y [flags]","short":"does y","long":"It does y.","example":"  x y",
"flags":[{"name":"output","short":"o","value":"FORMAT","text":"json or yaml","default":"json"},{"name":"all","text":"everything"}]}]}`

func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if err := run([]string{"-version", "v1", "-date", "2026-01-31", "-o", dir}, strings.NewReader(tree)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x.1": `.TH X 1 "2026-01-31" "borrownet v1" "borrownet"
.SH NAME
x \- does x
.SH DESCRIPTION
First line
and second.
.PP
.nf
  $ x \-\-now
.fi
.PP
\&.leading dot, back\eslash
.SH SEE ALSO
.BR x\-y (1)
`,
		"x-y.1": `.TH X\-Y 1 "2026-01-31" "borrownet v1" "borrownet"
.SH NAME
x\-y \- does y
.SH SYNOPSIS
.B x y [flags]
.SH DESCRIPTION
It does y.
.SH OPTIONS
.TP
.B \-o, \-\-output \fIFORMAT\fR
json or yaml (default json)
.TP
.B \-\-all
everything
.SH EXAMPLES
.nf
  x y
.fi
.SH SEE ALSO
.BR x (1)
`} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	if err := run([]string{"-o", dir}, strings.NewReader(tree)); err == nil {
		t.Error("without a version it succeeds")
	}
	if err := run([]string{"-version", "v1", "-date", "d", "-o", dir}, strings.NewReader("{")); err == nil {
		t.Error("half a tree is taken")
	}
}
