package settings

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// check finds what is wrong with the shape of a file, at its line: keys that nobody
// knows, and values of another kind.
func check(root *yaml.Node) error { return checkValue(root, reflect.TypeFor[Settings](), "") }

// shapes are what a value may look like, by type; those that are decoded by themselves
// say more.
func checkValue(n *yaml.Node, t reflect.Type, at string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return nil // as if the key were not there
	}
	if _, itself := reflect.New(t).Interface().(yaml.Unmarshaler); itself {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkStruct(n, t, at)
	case reflect.Map:
		return checkMap(n, t, at)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return wrong(n, at, "a list")
		}
		for _, one := range n.Content {
			if err := checkValue(one, t.Elem(), at); err != nil {
				return err
			}
		}
		return nil
	}
	if n.Kind != yaml.ScalarNode {
		return wrong(n, at, kindName(t))
	}
	if err := n.Decode(reflect.New(t).Interface()); err != nil {
		return wrong(n, at, kindName(t))
	}
	return nil
}

func checkStruct(n *yaml.Node, t reflect.Type, at string) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, at, "keys with values")
	}
	fields := fieldsOf(t)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		ft, ok := fields[key.Value]
		if !ok {
			return unknown(key, at, fields)
		}
		if err := checkValue(n.Content[i+1], ft, join(at, key.Value)); err != nil {
			return err
		}
	}
	return nil
}

func checkMap(n *yaml.Node, t reflect.Type, at string) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, at, "names with values")
	}
	for i := 0; i < len(n.Content); i += 2 {
		if err := checkValue(n.Content[i+1], t.Elem(), join(at, n.Content[i].Value)); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf returns the types of the keys of a struct.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" {
			out[name] = f.Type
		}
	}
	return out
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Uint16:
		return "a port number"
	}
	return "a text"
}

func wrong(n *yaml.Node, at, want string) error {
	if at == "" {
		at = "the file"
	}
	return fmt.Errorf("line %d: %s is not %s", n.Line, at, want)
}

// unknown explains a key that nobody knows.
func unknown(key *yaml.Node, at string, fields map[string]reflect.Type) error {
	where := "at the top"
	if at != "" {
		where = "in " + at
	}
	text := fmt.Sprintf("line %d: there is no key %s %s", key.Line, key.Value, where)
	if like := closest(key.Value, fields); like != "" {
		text += ", did you mean " + like + "?"
	}
	return fmt.Errorf("%s", text)
}

// closest returns the key that differs from word in the fewest letters, if these are
// few.
func closest(word string, fields map[string]reflect.Type) string {
	best, least := "", 1+len(word)/3
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least || d == least && best == "" {
			best, least = name, d
		}
	}
	return best
}

// distance is how many letters have to be added, dropped or changed to make b of a
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
