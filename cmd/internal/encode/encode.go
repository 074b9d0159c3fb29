// Package encode writes values for other programs to read.
package encode

import (
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/borrownet/borrownet/cmd/internal/printable"
)

// Formats are the names of the formats.
var Formats = []string{"json", "yaml"}

// Text returns v in one of Formats, with a newline at the end.
func Text(format string, v any) ([]byte, error) {
	switch format {
	case "json":
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encode JSON: %w", err)
		}
		return append(inert(text), '\n'), nil
	case "yaml":
		text, err := json.Marshal(v)
		if err == nil {
			text, err = yaml.JSONToYAML(inert(text)) // which takes no control characters
		}
		if err != nil {
			return nil, fmt.Errorf("encode YAML: %w", err)
		}
		return text, nil
	}
	return nil, fmt.Errorf("no format %q", format)
}

// Line returns v as one line of JSON.
func Line(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return append(inert(text), '\n'), nil
}

// inert escapes what JSON may have in its strings as it is, and nowhere else, and a
// terminal obeys. YAML, but for the direction of text, escapes that itself.
func inert(text []byte) []byte {
	var b strings.Builder
	for _, r := range string(text) {
		if r != '\n' && printable.Drives(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return []byte(b.String())
}
