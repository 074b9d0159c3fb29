package hook

import (
	"bufio"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxScripts bounds the interpreters that are themselves scripts (execve(2)).
const maxScripts = 4

// BlindError says that the preload library cannot see what a program does.
type BlindError struct {
	Path string // of the program, or of the interpreter of a script
	Why  string // such as "is statically linked"
}

func (e *BlindError) Error() string { return e.Path + " " + e.Why + "; preload cannot see it" }

// Visible reports why the preload library would not see what executing path does,
// nil or a *BlindError. hook/preload/image.c judges what programs start alike.
func Visible(path string) error {
	for range maxScripts {
		f, err := os.Open(path)
		if err != nil {
			return nil // executing it says why
		}
		interpreter, why := examine(f)
		f.Close()
		if why != "" {
			return &BlindError{Path: path, Why: why}
		}
		if interpreter == "" {
			return nil
		}
		path = interpreter
	}
	return nil
}

// examine returns the interpreter of a script, or what is wrong with a program.
func examine(f io.ReaderAt) (interpreter, why string) {
	line, _ := bufio.NewReader(io.NewSectionReader(f, 0, 256)).ReadString('\n')
	if words, ok := strings.CutPrefix(line, "#!"); ok {
		return scriptInterpreter(strings.Fields(words)), ""
	}
	e, err := elf.NewFile(f)
	if err != nil || e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return "", ""
	}
	if e.Section(".note.go.buildid") != nil {
		return "", "is a Go program, which makes its system calls itself"
	}
	if e.Class != elf.ELFCLASS64 {
		return "", "is a 32-bit program"
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return "", ""
		}
	}
	return "", "is statically linked"
}

// scriptInterpreter sees through env(1).
func scriptInterpreter(words []string) string {
	if len(words) == 0 {
		return ""
	}
	if filepath.Base(words[0]) != "env" {
		return words[0]
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
			continue
		}
		if path, err := exec.LookPath(w); err == nil {
			return path
		}
	}
	return words[0]
}
