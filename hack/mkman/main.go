// Command mkman writes manual pages of the commands that `borrownet __tree` prints.
//
//	borrownet __tree | mkman -version VERSION -date 2026-01-31 -o DIRECTORY
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// page is what borrownet prints of a command.
type page struct {
	Path, Usage, Short, Long, Example string
	Flags                             []struct{ Name, Short, Value, Text, Default string }
	Commands                          []page
}

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader) error {
	fs := flag.NewFlagSet("mkman", flag.ContinueOnError)
	version := fs.String("version", "", "`version` in the footer")
	date := fs.String("date", "", "`date` in the footer")
	out := fs.String("o", "", "`directory` to write to")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *out == "" || *version == "" || *date == "" || fs.NArg() > 0 {
		return fmt.Errorf("usage: borrownet __tree | mkman -version VERSION -date DATE -o DIRECTORY")
	}
	var root page
	if err := json.NewDecoder(in).Decode(&root); err != nil {
		return fmt.Errorf("read commands: %w", err)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	return root.write(*out, *date, *version, nil)
}

// write writes p and what is below it. also are the pages that it refers to.
func (p page) write(dir, date, version string, also []string) error {
	for _, c := range p.Commands {
		also = append(also, c.title())
	}
	text := p.roff(date, version, also)
	if err := os.WriteFile(filepath.Join(dir, p.title()+".1"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, c := range p.Commands {
		if err := c.write(dir, date, version, []string{p.title()}); err != nil {
			return err
		}
	}
	return nil
}

// title is the page's name.
func (p page) title() string { return strings.ReplaceAll(p.Path, " ", "-") }

func (p page) roff(date, version string, also []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 %q %q %q\n", escape(strings.ToUpper(p.title())), date, "borrownet "+version, "borrownet")
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(p.title()), escape(p.Short))
	if p.Usage != "" {
		fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", escape(p.Usage))
	}
	b.WriteString(".SH DESCRIPTION\n")
	b.WriteString(prose(p.Long))
	if len(p.Flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, f := range p.Flags {
		b.WriteString(".TP\n.B ")
		if f.Short != "" {
			b.WriteString("\\-" + f.Short + ", ")
		}
		b.WriteString(escape("--" + f.Name))
		if f.Value != "" {
			b.WriteString(" \\fI" + escape(f.Value) + "\\fR")
		}
		text := f.Text
		if f.Default != "" {
			text += " (default " + f.Default + ")"
		}
		b.WriteString("\n" + guard(escape(text)) + "\n")
	}
	if p.Example != "" {
		b.WriteString(".SH EXAMPLES\n" + literal(strings.Split(p.Example, "\n")))
	}
	if len(also) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, name := range also {
			end := ","
			if i == len(also)-1 {
				end = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", escape(name), end)
		}
	}
	return b.String()
}

// prose sets paragraphs in running text, and indented lines as they are.
func prose(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		lines := strings.Split(paragraph, "\n")
		for len(lines) > 0 {
			n := 0
			for n < len(lines) && indented(lines[n]) == indented(lines[0]) {
				n++
			}
			if indented(lines[0]) {
				b.WriteString(literal(lines[:n]))
			} else {
				for _, l := range lines[:n] {
					b.WriteString(guard(escape(l)) + "\n")
				}
			}
			lines = lines[n:]
		}
	}
	return b.String()
}

func indented(line string) bool { return strings.HasPrefix(line, " ") }

// literal sets lines as they are.
func literal(lines []string) string {
	var b strings.Builder
	b.WriteString(".nf\n")
	for _, l := range lines {
		b.WriteString(guard(escape(l)) + "\n")
	}
	b.WriteString(".fi\n")
	return b.String()
}

// escape takes the meaning from what roff would take for commands inside a line.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...", "–", `\-`).Replace(text)
}

// guard takes it from the first character of a line.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
