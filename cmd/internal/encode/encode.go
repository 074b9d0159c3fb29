// Package encode writes values for other programs to read.
package encode

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
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
		return append(text, '\n'), nil
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode YAML: %w", err)
		}
		return text, nil
	}
	return nil, fmt.Errorf("no format %q", format)
}
