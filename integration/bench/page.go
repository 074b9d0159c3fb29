package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// page puts the table of the results at args[0] into the Markdown page at args[1],
// between the comments that have the results' name.
func page(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("page: want RESULTS.json PAGE.md, have %q", args)
	}
	table, err := markdown(args[0])
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	before, _, after, err := cutTable(string(text), filepath.Base(args[0]))
	if err != nil {
		return fmt.Errorf("page %s: %w", args[1], err)
	}
	return os.WriteFile(args[1], []byte(before+table+after), 0o644)
}

// cutTable splits a page around the table of a results file.
func cutTable(text, name string) (before, table, after string, err error) {
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->\n"
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		return "", "", "", fmt.Errorf("no lines %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	i += len(begin)
	return text[:i], text[i:j], text[j:], nil
}

// markdown is the table of a results file.
func markdown(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var res Results
	if err := json.Unmarshal(text, &res); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %s, commit %s.\n\n", res.Machine, res.Date, res.Commit)
	b.WriteString("| row | subject | median | min to max | 95 % interval | unit | n | bar | held |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range res.Rows {
		fmt.Fprintf(&b, "| `%s` | %s | %.3g | %.3g to %.3g | %s | %s | %d | %s | %s |\n",
			r.ID, r.Subject, r.Value, r.Min, r.Max, r.interval(), r.Unit, r.N, r.Bar, r.held())
	}
	return b.String(), nil
}
