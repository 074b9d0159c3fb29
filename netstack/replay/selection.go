package replay

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Selection says which requests of those that are mirrored the local program gets.
// The zero value is all but health probes.
type Selection struct {
	// Filters must all match.
	Filters []Filter
	// Percent of the requests that match are taken, by chance; 0 means all.
	Percent float64
	// PerSecond caps how many requests are taken, in the time of the capture; up to
	// a second's worth may come at once. 0 means no cap.
	PerSecond float64
	// Probes takes health probes too.
	Probes bool
}

// needsHeads reports whether only requests whose head can be read may pass.
func (s *Selection) needsHeads() bool { return len(s.Filters) > 0 }

// A Filter is one condition on the head of a request.
type Filter struct {
	text   string
	negate bool
	match  func(*http.Request) bool
}

// String returns the filter as ParseFilter takes it.
func (f Filter) String() string { return f.text }

// Match reports whether the filter lets r pass.
func (f Filter) Match(r *http.Request) bool { return f.match(r) != f.negate }

// FilterSyntax is what ParseFilter understands, for people.
const FilterSyntax = "method=GET,POST, path=/orders, path=/api/*, path~REGEX, header:NAME, header:NAME=VALUE or header:NAME~REGEX, with ! in front for the opposite"

// ParseFilter reads a filter: see [FilterSyntax].
func ParseFilter(text string) (Filter, error) {
	f := Filter{text: text}
	rest, negate := strings.CutPrefix(text, "!")
	f.negate = negate
	var err error
	if name, ok := strings.CutPrefix(rest, "header:"); ok {
		f.match, err = parseHeader(name)
	} else {
		f.match, err = parseLine(rest)
	}
	if err != nil {
		return Filter{}, fmt.Errorf("filter %q: %w", text, err)
	}
	return f, nil
}

// operator splits NAME=VALUE and NAME~REGEX. op is 0 if there is neither.
func operator(text string) (name string, op byte, value string) {
	i := strings.IndexAny(text, "=~")
	if i < 0 {
		return text, 0, ""
	}
	return text[:i], text[i], text[i+1:]
}

func parseLine(text string) (func(*http.Request) bool, error) {
	name, op, value := operator(text)
	switch {
	case name == "method" && op == '=' && value != "":
		methods := strings.Split(strings.ToUpper(value), ",")
		return func(r *http.Request) bool { return slices.Contains(methods, r.Method) }, nil
	case name == "path" && op == '=' && strings.HasPrefix(value, "/"):
		if prefix, ok := strings.CutSuffix(value, "*"); ok {
			return func(r *http.Request) bool { return strings.HasPrefix(pathOf(r), prefix) }, nil
		}
		return func(r *http.Request) bool { return pathOf(r) == value }, nil
	case name == "path" && op == '~':
		re, err := regexp.Compile(value)
		if err != nil {
			return nil, err
		}
		return func(r *http.Request) bool { return re.MatchString(pathOf(r)) }, nil
	}
	return nil, fmt.Errorf("not one of %s", FilterSyntax)
}

func parseHeader(text string) (func(*http.Request) bool, error) {
	name, op, value := operator(text)
	if name == "" {
		return nil, fmt.Errorf("not one of %s", FilterSyntax)
	}
	name = http.CanonicalHeaderKey(name)
	switch op {
	case 0:
		return func(r *http.Request) bool { return len(valuesOf(r, name)) > 0 }, nil
	case '=':
		return func(r *http.Request) bool { return slices.Contains(valuesOf(r, name), value) }, nil
	}
	re, err := regexp.Compile(value)
	if err != nil {
		return nil, err
	}
	return func(r *http.Request) bool { return slices.ContainsFunc(valuesOf(r, name), re.MatchString) }, nil
}

// valuesOf returns the values of a header of r. net/http keeps Host elsewhere.
func valuesOf(r *http.Request, name string) []string {
	if name == "Host" && r.Host != "" {
		return []string{r.Host}
	}
	return r.Header[name]
}

// pathOf returns the path of r as it was sent, without the query.
func pathOf(r *http.Request) string {
	if r.URL == nil || r.URL.Path == "" {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath()
}

// isProbe reports whether r is a health probe of the cluster: the kubelet's, which a
// sidecar's agent repeats with the kubelet's own headers, or an Envoy's.
func isProbe(r *http.Request) bool {
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "kube-probe/") || agent == "Envoy/HC"
}

// A selector decides by a Selection.
type selector struct {
	Selection
	tokens float64   // requests that may pass now
	filled time.Time // when tokens was true
}

// take decides about the request r, captured at the time.
func (s *selector) take(r *http.Request, at time.Time) fate {
	switch {
	case !s.Probes && isProbe(r):
		return probe
	case slices.ContainsFunc(s.Filters, func(f Filter) bool { return !f.Match(r) }):
		return filtered
	case s.Percent > 0 && rand.Float64()*100 >= s.Percent:
		return sampled
	case !s.token(at):
		return capped
	}
	return taken
}

// token takes one of the tokens for requests, if there is one.
func (s *selector) token(at time.Time) bool {
	if s.PerSecond <= 0 {
		return true
	}
	burst := max(s.PerSecond, 1)
	if s.filled.IsZero() {
		s.tokens = burst
	} else if passed := at.Sub(s.filled); passed > 0 {
		s.tokens = min(burst, s.tokens+passed.Seconds()*s.PerSecond)
	}
	s.filled = at
	if s.tokens < 1 {
		return false
	}
	s.tokens--
	return true
}
