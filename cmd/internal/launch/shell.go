package launch

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Shell is an interactive shell with a marked prompt.
type Shell struct {
	Argv []string
	Env  []string // added to the environment; later entries win

	dir string   // of its start-up files
	pid *os.File // fifo into which a start-up file writes the shell's process id
}

// NewShell prepares the person's shell, path (usually $SHELL) or /bin/sh. dir is
// where start-up files may be put; they remove themselves when they are read.
func NewShell(path, dir, session string) (*Shell, error) {
	if !executable(path) {
		path = "/bin/sh"
	}
	sh := &Shell{Argv: []string{path}}
	if err := sh.open(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("make start-up files: %w", err), sh.Close())
	}
	mark := quote("(borrownet:" + session + ") ")
	var err error
	switch filepath.Base(path) {
	case "fish":
		sh.Argv = append(sh.Argv, "--init-command", fmt.Sprintf(fishInit, mark, quote(sh.dir)))
	case "bash", "rbash":
		sh.Argv = append(sh.Argv, "--rcfile", sh.file("bashrc"), "-i")
		err = sh.write("bashrc", fmt.Sprintf(bashRC, quote(sh.dir), mark))
	case "zsh":
		sh.Argv = append(sh.Argv, "-i")
		sh.Env = []string{"_BORROWNET_ZDOTDIR=" + os.Getenv("ZDOTDIR"), "ZDOTDIR=" + sh.dir}
		err = errors.Join(sh.write(".zshenv", zshEnv), sh.write(".zshrc", fmt.Sprintf(zshRC, mark)))
	default:
		sh.Argv = append(sh.Argv, "-i")
		sh.Env = []string{"ENV=" + sh.file("shrc")}
		err = sh.write("shrc", fmt.Sprintf(posixRC, quote(sh.dir), mark, quote(os.Getenv("ENV"))))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make start-up files: %w", err), sh.Close())
	}
	return sh, nil
}

// open makes the directory of the start-up files and the fifo in it.
func (s *Shell) open(dir string) error {
	var err error
	if s.dir, err = os.MkdirTemp(dir, "shell-"); err != nil {
		return err
	}
	if err := syscall.Mkfifo(s.file("pid"), 0o600); err != nil {
		return os.NewSyscallError("mkfifo", err)
	}
	// Open for writing too, so that the shell's own open does not wait.
	s.pid, err = os.OpenFile(s.file("pid"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	return err
}

func (s *Shell) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Shell) write(name, text string) error {
	return os.WriteFile(s.file(name), []byte(text), 0o600)
}

// Pid waits until the shell has told its process id. After Close it returns an
// error.
func (s *Shell) Pid() (int, error) {
	line, err := bufio.NewReader(s.pid).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read the shell's process id: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

func executable(path string) bool {
	found, err := exec.LookPath(path)
	if err != nil || !filepath.IsAbs(path) {
		return false
	}
	switch filepath.Base(found) {
	case "false", "true", "nologin": // login shells of accounts nobody logs in to
		return false
	}
	return true
}

// Close removes the start-up files if the shell did not.
func (s *Shell) Close() error {
	var err error
	if s.pid != nil {
		err = s.pid.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// The start-up files run the person's own first, then mark the prompt, again
// before every prompt if something there sets it anew (starship and the like).
const (
	bashRC = `echo $$ > %[1]s/pid
rm -rf -- %[1]s
if [ -f /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
if [ -f ~/.bashrc ]; then . ~/.bashrc; fi
_borrownet_mark=%[2]s
_borrownet_prompt() {
  local status=$?
  case "$PS1" in *"$_borrownet_mark"*) ;; *) PS1="$_borrownet_mark$PS1" ;; esac
  return $status
}
if [[ "$(declare -p PROMPT_COMMAND 2>/dev/null)" == "declare -a"* ]]; then
  PROMPT_COMMAND+=(_borrownet_prompt)
else
  PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND
}_borrownet_prompt"
fi
`
	zshEnv = `_borrownet_files=$ZDOTDIR
if [[ -n "$_BORROWNET_ZDOTDIR" ]]; then ZDOTDIR=$_BORROWNET_ZDOTDIR; else unset ZDOTDIR; fi
unset _BORROWNET_ZDOTDIR
[[ -f "${ZDOTDIR:-$HOME}/.zshenv" ]] && . "${ZDOTDIR:-$HOME}/.zshenv"
_borrownet_zdotdir=$ZDOTDIR
ZDOTDIR=$_borrownet_files
`
	zshRC = `echo $$ > "$_borrownet_files/pid"
rm -rf -- "$_borrownet_files"
if [[ -n "$_borrownet_zdotdir" ]]; then ZDOTDIR=$_borrownet_zdotdir; else unset ZDOTDIR; fi
[[ -f "${ZDOTDIR:-$HOME}/.zshrc" ]] && . "${ZDOTDIR:-$HOME}/.zshrc"
_borrownet_mark=%s
_borrownet_prompt() {
  case "$PROMPT" in *"$_borrownet_mark"*) ;; *) PROMPT="$_borrownet_mark$PROMPT" ;; esac
}
precmd_functions+=(_borrownet_prompt)
`
	posixRC = `echo $$ > %[1]s/pid
rm -rf -- %[1]s
ENV=%[3]s
if [ -n "$ENV" ] && [ -f "$ENV" ]; then . "$ENV"; fi
PS1=%[2]s"${PS1:-$ }"
`
	fishInit = `echo $fish_pid > %[2]s/pid; rm -rf -- %[2]s
functions -q fish_prompt; and functions -c fish_prompt _borrownet_prompt; or function _borrownet_prompt; echo -n '> '; end
function fish_prompt; set -l last $status; echo -n %[1]s; test $last -eq 0; _borrownet_prompt; end`
)

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
