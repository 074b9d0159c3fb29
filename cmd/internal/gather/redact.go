package gather

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// minSecret is the length from which a known secret is looked for: shorter ones are
// words.
const minSecret = 6

// Redactor takes secrets out of text. The zero value knows what secrets look like.
type Redactor struct {
	known []string // longest first
}

// Know makes the redactor take out these values wherever they stand, in base64 too.
func (r *Redactor) Know(secrets ...string) {
	for _, s := range secrets {
		s = strings.TrimSpace(s)
		if len(s) < minSecret {
			continue
		}
		r.known = append(r.known, s, base64.StdEncoding.EncodeToString([]byte(s)))
	}
	slices.SortFunc(r.known, func(a, b string) int { return len(b) - len(a) })
	r.known = slices.Compact(r.known)
}

// secretName is part of the names of variables, fields and flags that hold secrets.
const secretName = `(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|session[_-]?key|authorization|cookie|-key-data)`

// looks are what secrets look like. Their groups stay: what is before, and after.
var looks = []*regexp.Regexp{
	regexp.MustCompile(`(?s)()-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----()`),
	regexp.MustCompile(`()-----BEGIN [A-Z0-9 ]+-----(?:\s|\\n|[A-Za-z0-9+/=]{12,})*()`), // cut off
	regexp.MustCompile(`()eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*()`),
	regexp.MustCompile(`(?i)\b((?:bearer|basic|negotiate)\s+)[A-Za-z0-9._~+/=-]{6,}()`),
	regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]+(@)`),
	regexp.MustCompile(`()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b()`),
	regexp.MustCompile(`()\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AIza)[A-Za-z0-9_-]{16,}()`),
	// A name and its value: NAME=value, name: value, "name": "value", also inside a
	// string, and --name value.
	regexp.MustCompile(`(?i)(` + secretName + `[\w.-]*\\"\s*:\s*\\")[^"\\]*(\\")`),
	regexp.MustCompile(`(?i)(` + secretName + `[\w.-]*"?\s*[=:]\s*")(?:[^"\\]|\\.)*(")`),
	regexp.MustCompile(`(?i)(` + secretName + `[\w.-]*'?\s*[=:]\s*')[^']*(')`),
	regexp.MustCompile(`(?i)(` + secretName + `[\w.-]*\s*[=:]\s*)[^\s"',;{}\[\]][^\s"',;}\]]*()`),
	regexp.MustCompile(`(?i)(--[\w-]*` + secretName + `[\w-]*\s+)[^\s"'\[]+()`),
}

// mark stands where a secret was.
const mark = "[redacted]"

// Text returns text without secrets.
func (r *Redactor) Text(text string) string {
	for _, s := range r.known {
		text = strings.ReplaceAll(text, s, mark)
	}
	for _, look := range looks {
		text = look.ReplaceAllString(text, "${1}"+mark+"${2}")
	}
	return text
}

// SecretVariable reports whether a variable of that name may hold a secret.
func SecretVariable(name string) bool { return secretVariable.MatchString(name) }

var secretVariable = regexp.MustCompile(`(?i)` + secretName + `|(?:^|_)(?:key|auth|pat|dsn)(?:_|$)|connection_?string`)
