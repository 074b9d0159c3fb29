package replay

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// maxDiffers bounds what is said of one request.
const maxDiffers = 50

// A Difference compares the live answer to a request with the local one.
type Difference struct {
	Request
	Live  Answer `json:"live"`
	Local Answer `json:"local"`
	// Differs lists what is different, in the order of status, headers, body; empty
	// if nothing is.
	Differs []Differs `json:"differs,omitempty"`
}

// Differs is one thing that is different. An absent value is "".
type Differs struct {
	What  string `json:"what"` // status, header:NAME, trailer:NAME, body, or a place in a JSON body: $.items[0].id
	Live  string `json:"live"`
	Local string `json:"local"`
}

// alwaysIgnored are headers that differ between any two servers, or answers.
var alwaysIgnored = []string{
	"Connection", "Content-Length", "Date", "Keep-Alive", "Server", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Via",
	"X-Envoy-Decorator-Operation", "X-Envoy-Upstream-Service-Time", "X-Powered-By", "X-Request-Id",
}

// Ignore says what is not compared: the zero value are the headers that differ between
// any two answers.
type Ignore struct {
	headers []string
	paths   []*regexp.Regexp
}

// Add adds a header's name, or a place in JSON bodies: $.items[*].id.
func (i *Ignore) Add(text string) error {
	switch {
	case text == "" || strings.ContainsAny(text, " :\t"):
		return fmt.Errorf("%q is neither the name of a header nor a place like $.items[*].id", text)
	case !strings.HasPrefix(text, "$"):
		i.headers = append(i.headers, http.CanonicalHeaderKey(text))
		return nil
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(text), `\[\*\]`, `\[[0-9]+\]`)
	re, err := regexp.Compile("^" + pattern + `($|[.\[])`)
	i.paths = append(i.paths, re)
	return err
}

func (i *Ignore) header(name string) bool {
	return slices.Contains(alwaysIgnored, name) || slices.Contains(i.headers, name)
}

func (i *Ignore) path(at string) bool {
	return slices.ContainsFunc(i.paths, func(re *regexp.Regexp) bool { return re.MatchString(at) })
}

// comparison collects what is different.
type comparison struct {
	ignore *Ignore
	found  []Differs
}

// compare returns how local differs from live.
func compare(live, local *Answer, ignore *Ignore) []Differs {
	c := comparison{ignore: ignore}
	if live.Missing != "" || local.Missing != "" {
		if live.Missing == "" || local.Missing == "" {
			c.differ("answer", said(live), said(local))
		}
		return c.found
	}
	if live.Status != local.Status {
		c.differ("status", fmt.Sprint(live.Status), fmt.Sprint(local.Status))
	}
	c.headers("header:", live.Header, local.Header)
	c.headers("trailer:", live.Trailer, local.Trailer)
	c.bodies(live, local)
	return c.found
}

// said is an answer in a word.
func said(a *Answer) string {
	if a.Missing != "" {
		return a.Missing
	}
	return fmt.Sprint(a.Status)
}

func (c *comparison) differ(what, live, local string) {
	if len(c.found) < maxDiffers {
		c.found = append(c.found, Differs{what, short(live), short(local)})
	}
}

// short bounds a value for people.
func short(s string) string {
	const limit = 200
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

func (c *comparison) headers(kind string, live, local http.Header) {
	names := map[string]bool{}
	for name := range live {
		names[name] = true
	}
	for name := range local {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !c.ignore.header(name) && !slices.Equal(live[name], local[name]) {
			c.differ(kind+name, strings.Join(live[name], ", "), strings.Join(local[name], ", "))
		}
	}
}

func (c *comparison) bodies(live, local *Answer) {
	a, b := decoded(live), decoded(local)
	if bytes.Equal(a, b) && live.Cut == local.Cut {
		return
	}
	var x, y any
	if !live.Cut && !local.Cut && json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil {
		c.values("$", x, y)
		return
	}
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	c.differ("body", fmt.Sprintf("%d bytes, from %d on %q", len(a), at, glimpse(a[at:])), fmt.Sprintf("%d bytes, from %d on %q", len(b), at, glimpse(b[at:])))
}

func glimpse(b []byte) []byte { return b[:min(len(b), 40)] }

// decoded returns a's body without its compression, if that is a usual one.
func decoded(a *Answer) []byte {
	if a.Header.Get("Content-Encoding") != "gzip" {
		return a.Body
	}
	z, err := gzip.NewReader(bytes.NewReader(a.Body))
	if err != nil {
		return a.Body
	}
	plain, err := io.ReadAll(io.LimitReader(z, 8*maxAnswer))
	if err != nil && !a.Cut {
		return a.Body
	}
	return plain
}

// values compares two JSON values at a place.
func (c *comparison) values(at string, x, y any) {
	if c.ignore.path(at) || reflect.DeepEqual(x, y) {
		return
	}
	switch a := x.(type) {
	case map[string]any:
		if b, ok := y.(map[string]any); ok {
			c.objects(at, a, b)
			return
		}
	case []any:
		if b, ok := y.([]any); ok {
			c.arrays(at, a, b)
			return
		}
	}
	c.differ(at, text(x), text(y))
}

func (c *comparison) objects(at string, a, b map[string]any) {
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, inA := a[name]
		y, inB := b[name]
		c.members(at+"."+name, x, y, inA, inB)
	}
}

func (c *comparison) arrays(at string, a, b []any) {
	for i := range max(len(a), len(b)) {
		var x, y any
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		c.members(fmt.Sprintf("%s[%d]", at, i), x, y, i < len(a), i < len(b))
	}
}

// members compares two values that may not be there.
func (c *comparison) members(at string, x, y any, inX, inY bool) {
	switch {
	case inX && inY:
		c.values(at, x, y)
	case c.ignore.path(at):
	case inX:
		c.differ(at, text(x), "")
	default:
		c.differ(at, "", text(y))
	}
}

// text is a JSON value as text.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
