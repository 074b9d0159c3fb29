package encode

import (
	"encoding/json"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/borrownet/borrownet/cmd/internal/printable/printabletest"
)

func TestText(t *testing.T) {
	v := struct {
		Name string `json:"name"`
		List []int  `json:"list"`
	}{"x", []int{1}}
	tests := []struct{ format, want string }{
		{"json", "{\n  \"name\": \"x\",\n  \"list\": [\n    1\n  ]\n}\n"},
		{"yaml", "list:\n- 1\nname: x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.format, func(t *testing.T) {
			got, err := Text(tt.format, v)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := Text("xml", v); err == nil {
		t.Error("xml: no error")
	}
}

// TestForeignTexts: what is for programs is shown on terminals too. It drives none, and
// means the same to a program.
func TestForeignTexts(t *testing.T) {
	const text = "x\x1b[2J\u009b31m\x7f\r\n\u202e\u2028<é✓>"
	v := map[string]string{text: text}
	line, err := Line(v)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Text("json", v)
	if err != nil {
		t.Fatal(err)
	}
	for where, got := range map[string][]byte{"line": line, "text": whole} {
		printabletest.Inert(t, where, string(got))
		var back map[string]string
		if err := json.Unmarshal(got, &back); err != nil || back[text] != text {
			t.Errorf("%s: %q, %v", where, back, err)
		}
	}
	const obeyed = "x\x1b[2J\u009b31m\x7f\r\n"
	got, err := Text("yaml", map[string]string{obeyed: obeyed})
	if err != nil {
		t.Fatal(err)
	}
	printabletest.Inert(t, "yaml", string(got))
	var back map[string]string
	if err := yaml.Unmarshal(got, &back); err != nil || back[obeyed] != obeyed {
		t.Errorf("yaml: %q, %v", back, err)
	}
}
