package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const overviewHead = `# Benchmarks

Made by ` + "`make bench`" + ` from the JSON files beside it; do not edit. Each file is one run in the lab
([integration/lab](../../integration/lab)): client, API server, kubelet, container runtime and pods share one machine, so throughput is
processor time per byte, of all of them. Subjects take turns with the same program and the same server, and ratios are to
` + "`raw-spdy`" + ` (kubectl port-forward over SPDY) of the same row and run; ` + "`raw-ws`" + ` is what kubectl uses by default. The value is the
median. Rows with a delay go through a proxy in front of the API server that holds each byte back. What misses its bar stays in
the table.
`

// overview writes README.md and the charts into the directory at args[0], of the results that are there.
func overview(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("overview: want DIR, have %q", args)
	}
	pages, err := overviewOf(args[0])
	if err != nil {
		return fmt.Errorf("overview: %w", err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("overview: %w", err)
		}
	}
	return nil
}

// overviewOf returns the files of an overview of a directory's results, by name.
func overviewOf(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	pages := make(map[string]string)
	var b strings.Builder
	b.WriteString(overviewHead)
	for _, file := range files {
		table, err := markdown(file)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var res Results
		if err := json.Unmarshal(text, &res); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		fmt.Fprintf(&b, "\n## %s\n\n", name)
		if svg := chart(res); svg != "" {
			pages[name+".svg"] = svg
			fmt.Fprintf(&b, "![%[1]s relative to raw-spdy](%[1]s.svg)\n\n", name)
		}
		b.WriteString(table)
	}
	pages["README.md"] = b.String()
	return pages, nil
}
