package launch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dialect is a language in which a shell is told to change its variables.
type Dialect string

// The dialects. Posix is that of bash, zsh, dash and the like.
const (
	Posix Dialect = "posix"
	Fish  Dialect = "fish"
)

// DialectOf returns the dialect of the shell of that name.
func DialectOf(shell string) Dialect {
	if shell == "fish" {
		return Fish
	}
	return Posix
}

// Change returns the commands that make a shell's environment from into to.
func (d Dialect) Change(from, to []string) string {
	before, after := index(from), index(to)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok && shellName.MatchString(name) {
			b.WriteString(d.unset(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if old, ok := before[name]; (!ok || old != after[name]) && shellName.MatchString(name) {
			b.WriteString(d.export(name, after[name]))
		}
	}
	return b.String()
}

func (d Dialect) unset(name string) string {
	if d == Fish {
		return "set -e " + name + ";\n"
	}
	return "unset " + name + ";\n"
}

func (d Dialect) export(name, value string) string {
	if d == Fish {
		return fmt.Sprintf("set -gx %s %s;\n", name, quoteFish(value))
	}
	return fmt.Sprintf("export %s=%s;\n", name, quote(value))
}

// quoteFish makes s one word of fish, where a backslash counts inside of quotes.
func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// Follow returns the commands for a start-up file, by which a shell follows the
// sessions whose sockets are in dir: it looks before each prompt, without starting
// a program, and asks self only when a session has come or gone.
func Follow(shell, dir, self string) string {
	text := map[string]string{"bash": followBash, "zsh": followZsh, "fish": followFish}[shell]
	q := quote
	if shell == "fish" {
		q = quoteFish
	}
	return strings.NewReplacer("@DIR@", q(dir), "@SELF@", q(self)).Replace(text)
}

const (
	followBash = `_borrownet_follow() {
  local last=$? now
  now=$(shopt -s nullglob; printf %s @DIR@/session-*.sock)
  if [ "$now" != "$_borrownet_sessions" ]; then
    _borrownet_sessions=$now
    eval "$(@SELF@ env --shell bash --follow-step)"
  fi
  return $last
}
if [[ "$(declare -p PROMPT_COMMAND 2>/dev/null)" == "declare -a"* ]]; then
  PROMPT_COMMAND+=(_borrownet_follow)
else
  PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND
}_borrownet_follow"
fi
`
	followZsh = `_borrownet_follow() {
  local now=(@DIR@/session-*.sock(N))
  if [[ "$now" != "$_borrownet_sessions" ]]; then
    _borrownet_sessions="$now"
    eval "$(@SELF@ env --shell zsh --follow-step)"
  fi
}
precmd_functions+=(_borrownet_follow)
`
	followFish = `function _borrownet_follow --on-event fish_prompt
  set -l now @DIR@/session-*.sock
  if test "$now" != "$_borrownet_sessions"
    set -g _borrownet_sessions $now
    @SELF@ env --shell fish --follow-step | source
  end
end
`
)
