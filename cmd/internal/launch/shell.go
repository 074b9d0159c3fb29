package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Shell is an interactive shell with a marked prompt.
type Shell struct {
	Argv []string
	Env  []string // added to the environment; later entries win
	dir  string   // of its start-up files; "" = none
}

// NewShell prepares the person's shell, path (usually $SHELL) or /bin/sh. dir is
// where start-up files may be put; they remove themselves when they are read.
func NewShell(path, dir, session string) (*Shell, error) {
	if !executable(path) {
		path = "/bin/sh"
	}
	sh := &Shell{Argv: []string{path}}
	mark := "(borrownet:" + session + ") "
	switch filepath.Base(path) {
	case "fish":
		sh.Argv = append(sh.Argv, "--init-command", fmt.Sprintf(fishInit, quote(mark)))
		return sh, nil
	case "bash", "rbash":
		return sh, sh.bash(dir, mark)
	case "zsh":
		return sh, sh.zsh(dir, mark)
	default:
		return sh, sh.posix(dir, mark)
	}
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
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// The start-up files run the person's own first, then mark the prompt, again
// before every prompt if something there sets it anew (starship and the like).
const (
	bashRC = `rm -rf -- %[1]s
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
	zshRC = `rm -rf -- "$_borrownet_files"
if [[ -n "$_borrownet_zdotdir" ]]; then ZDOTDIR=$_borrownet_zdotdir; else unset ZDOTDIR; fi
[[ -f "${ZDOTDIR:-$HOME}/.zshrc" ]] && . "${ZDOTDIR:-$HOME}/.zshrc"
_borrownet_mark=%s
_borrownet_prompt() {
  case "$PROMPT" in *"$_borrownet_mark"*) ;; *) PROMPT="$_borrownet_mark$PROMPT" ;; esac
}
precmd_functions+=(_borrownet_prompt)
`
	posixRC = `rm -rf -- %[1]s
ENV=%[3]s
if [ -n "$ENV" ] && [ -f "$ENV" ]; then . "$ENV"; fi
PS1=%[2]s"${PS1:-$ }"
`
	fishInit = `functions -q fish_prompt; and functions -c fish_prompt _borrownet_prompt; or function _borrownet_prompt; echo -n '> '; end
function fish_prompt; set -l last $status; echo -n %s; test $last -eq 0; _borrownet_prompt; end`
)

func (s *Shell) bash(dir, mark string) error {
	rc, err := s.files(dir, nil)
	if err != nil {
		return err
	}
	path := filepath.Join(rc, "bashrc")
	s.Argv = append(s.Argv, "--rcfile", path, "-i")
	return os.WriteFile(path, fmt.Appendf(nil, bashRC, quote(rc), quote(mark)), 0o600)
}

func (s *Shell) zsh(dir, mark string) error {
	rc, err := s.files(dir, map[string]string{".zshenv": zshEnv, ".zshrc": fmt.Sprintf(zshRC, quote(mark))})
	if err != nil {
		return err
	}
	s.Argv = append(s.Argv, "-i")
	s.Env = []string{"_BORROWNET_ZDOTDIR=" + os.Getenv("ZDOTDIR"), "ZDOTDIR=" + rc}
	return nil
}

func (s *Shell) posix(dir, mark string) error {
	rc, err := s.files(dir, nil)
	if err != nil {
		return err
	}
	path := filepath.Join(rc, "shrc")
	s.Argv = append(s.Argv, "-i")
	s.Env = []string{"ENV=" + path}
	return os.WriteFile(path, fmt.Appendf(nil, posixRC, quote(rc), quote(mark), quote(os.Getenv("ENV"))), 0o600)
}

// files makes the directory of the start-up files and fills it.
func (s *Shell) files(dir string, texts map[string]string) (string, error) {
	rc, err := os.MkdirTemp(dir, "shell-")
	if err != nil {
		return "", fmt.Errorf("make start-up files: %w", err)
	}
	s.dir = rc
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(rc, name), []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("make start-up files: %w", err)
		}
	}
	return rc, nil
}

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
