package kube

import (
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"
)

// TestDocumentOfForeignTexts: what a pod's spec may have in a value is written so that it
// can be read, and drives no terminal.
func TestDocumentOfForeignTexts(t *testing.T) {
	const text = "x\x1b[2J\u009b31m\x7f\u0085\r\nforged: yes"
	got, err := document(map[string]string{"value": text})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(string(got), func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
		t.Errorf("a terminal obeys %q", got)
	}
	var back map[string]string
	if err := yaml.Unmarshal(got, &back); err != nil || back["value"] != text {
		t.Errorf("%q, %v, want %q", back, err, text)
	}
}
