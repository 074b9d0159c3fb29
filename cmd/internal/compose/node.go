package compose

import (
	"iter"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// get returns the value of a key of the mapping m, nil if there is none.
func get(m *yaml.Node, key string) *yaml.Node {
	if i := find(m, key); i >= 0 {
		return m.Content[i+1]
	}
	return nil
}

// find returns where the key is in m, -1 if it is not.
func find(m *yaml.Node, key string) int {
	if m == nil || m.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// set gives a key of m a value, in the place of what it had.
func set(m *yaml.Node, key string, v *yaml.Node) {
	if i := find(m, key); i >= 0 {
		m.Content[i+1] = v
		return
	}
	m.Content = append(m.Content, scalar(key), v)
}

// remove takes a key out of m and returns its value, nil if there was none.
func remove(m *yaml.Node, key string) *yaml.Node {
	i := find(m, key)
	if i < 0 {
		return nil
	}
	v := m.Content[i+1]
	m.Content = slices.Delete(m.Content, i, i+2)
	return v
}

// pairs are the keys of m, as they were at the start, and their values.
func pairs(m *yaml.Node) iter.Seq2[string, *yaml.Node] {
	content := slices.Clone(m.Content)
	return func(yield func(string, *yaml.Node) bool) {
		for i := 0; i+1 < len(content); i += 2 {
			if !yield(content[i].Value, content[i+1]) {
				return
			}
		}
	}
}

// text is the value of a scalar, "" for anything else.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// word is a string that no version of YAML takes for something else, with those
// of oldBools out of it.
var word = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)

// oldBools are what YAML 1.1, which docker-compose 1 reads, takes for bools or null.
var oldBools = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

// scalar is a string, whatever it looks like.
func scalar(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if !word.MatchString(s) || slices.Contains(oldBools, strings.ToLower(s)) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// plain is a number or a bool.
func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func null() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"} }

func sequence(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Content: items}
}

func list(items ...string) *yaml.Node {
	out := sequence()
	for _, s := range items {
		out.Content = append(out.Content, scalar(s))
	}
	return out
}

// mapping is one of keys and values in turn: strings and nodes.
func mapping(pairs ...any) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		set(m, pairs[i].(string), pairs[i+1].(*yaml.Node))
	}
	return m
}

// bind is a file or directory of this machine, read-only. It must exist: the short
// form would make a directory in its place.
func bind(source, target string) *yaml.Node {
	return mapping("type", scalar("bind"), "source", scalar(source), "target", scalar(target), "read_only", plain("true"))
}
