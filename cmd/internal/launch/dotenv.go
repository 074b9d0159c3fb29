package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Formats lists how Format can write an environment.
func Formats() []string { return []string{"dotenv", "json", "sh"} }

// Format writes variables, KEY=value, as a file of one of Formats. Names that a
// shell cannot have are left out of "sh".
func Format(format string, env []string) ([]byte, error) {
	var b strings.Builder
	switch format {
	case "dotenv":
		for _, kv := range env {
			name, value, _ := strings.Cut(kv, "=")
			fmt.Fprintf(&b, "%s=%s\n", name, quoteDotenv(value))
		}
	case "sh":
		for _, kv := range env {
			if name, value, _ := strings.Cut(kv, "="); shellName.MatchString(name) {
				fmt.Fprintf(&b, "export %s=%s\n", name, quote(value))
			}
		}
	case "json":
		all := map[string]string{}
		for _, kv := range env {
			name, value, _ := strings.Cut(kv, "=")
			all[name] = value
		}
		text, err := json.MarshalIndent(all, "", "  ")
		return append(text, '\n'), err
	default:
		return nil, fmt.Errorf("format %q is none of %s", format, strings.Join(Formats(), ", "))
	}
	return []byte(b.String()), nil
}

var (
	shellName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// bare is a value that every reader of such files, docker's too, takes as it is.
	bare = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]*$`)
)

var dotenvEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "$", `\$`)

func quoteDotenv(value string) string {
	if bare.MatchString(value) {
		return value
	}
	return `"` + dotenvEscapes.Replace(value) + `"`
}

// ParseDotenv reads lines of NAME=VALUE: # begins a comment line, "export "
// before a name is skipped, a value in single quotes is taken as it is, one in
// double quotes has the escapes \n \r \" \\ \$. Nothing is expanded.
func ParseDotenv(text string) ([]string, error) {
	var env []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if name = strings.TrimSpace(name); !ok || !plainName.MatchString(name) {
			return nil, fmt.Errorf("line %d is not NAME=VALUE", i+1)
		}
		value, err := unquoteDotenv(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: value of %s: %w", i+1, name, err)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

func unquoteDotenv(s string) (string, error) {
	switch {
	case strings.ContainsRune(s, 0):
		return "", errors.New("a NUL byte cannot be in a variable")
	case s == "" || s[0] != '"' && s[0] != '\'':
		return s, nil
	case len(s) < 2 || s[len(s)-1] != s[0]:
		return "", fmt.Errorf("no closing %c", s[0])
	case s[0] == '\'':
		return s[1 : len(s)-1], nil
	}
	var b strings.Builder
	for s = s[1 : len(s)-1]; s != ""; s = s[1:] {
		if s[0] == '"' {
			return "", errors.New(`a " inside without a backslash before it`)
		}
		if s[0] != '\\' {
			b.WriteByte(s[0])
			continue
		}
		if s = s[1:]; s == "" {
			return "", errors.New(`no closing "`)
		}
		switch s[0] {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case '"', '\\', '$':
			b.WriteByte(s[0])
		default:
			b.WriteString(`\` + s[:1])
		}
	}
	return b.String(), nil
}
