package printable_test

import (
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/printable"
	"github.com/borrownet/borrownet/cmd/internal/printable/printabletest"
)

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, in, text, line string }{
		{"plain", " api-1 ✓ café 你好 👩‍💻\n", " api-1 ✓ café 你好 👩‍💻\n", "api-1 ✓ café 你好 👩‍💻"},
		{"escape", "a\x1b[2Jb", "a?[2Jb", "a?[2Jb"},
		{"one_byte_controls", "a\x00\a\b\v\f\r\x7fb", "a???????b", "a???????b"},
		{"two_byte_controls", "a\u0080\u0085\u009b2Jb", "a???2Jb", "a???2Jb"},
		{"no_utf8", "a\x9b2J\xffb", "a\ufffd2J\ufffdb", "a\ufffd2J\ufffdb"},
		{"direction", "a\u202eb\u2066c\u200f", "a?b?c?", "a?b?c?"},
		{"lines", "a\nb\tc\u2028d", "a\nb\tc?d", "a b c?d"},
		{"hostile", printabletest.Hostile, "x?[2J?]0;owned??31m??????\ufffdy\nforged: yes\tz", "x?[2J?]0;owned??31m??????\ufffdy forged: yes z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := printable.Text(tt.in); got != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
			if got := printable.Line(tt.in); got != tt.line {
				t.Errorf("line %q, want %q", got, tt.line)
			}
		})
	}
}
