package launch

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// UndoVar holds what a shell's variables were before `borrownet env` changed them.
const UndoVar = "BORROWNET_UNDO"

// undo are the former values of variables, nil for those that were not set.
type undo map[string]*string

// Original returns the environment as it was before `borrownet env`, and whether
// that had changed it.
func Original(env []string) (original []string, changed bool) {
	u, ok := readUndo(env)
	if !ok {
		return env, false
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if _, ours := u[name]; !ours && name != UndoVar {
			original = append(original, kv)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u)) {
		if v := u[name]; v != nil {
			original = append(original, name+"="+*v)
		}
	}
	return original, true
}

// readUndo finds UndoVar in env; one that cannot be read counts as none.
func readUndo(env []string) (undo, bool) {
	for _, kv := range env {
		text, ok := strings.CutPrefix(kv, UndoVar+"=")
		if !ok {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, false
		}
		var u undo
		if err := json.Unmarshal(b, &u); err != nil {
			return nil, false
		}
		return u, true
	}
	return nil, false
}

// WithUndo returns env with UndoVar in it, which leads back to original.
func WithUndo(original, env []string) []string {
	before, after := index(original), index(env)
	u := undo{}
	for name, v := range after {
		if old, ok := before[name]; !ok {
			u[name] = nil
		} else if old != v {
			u[name] = &old
		}
	}
	for name, old := range before {
		if _, ok := after[name]; !ok {
			u[name] = &old
		}
	}
	b, err := json.Marshal(u)
	if err != nil {
		panic(err) // strings and nil: unreachable
	}
	return append(slices.Clone(env), UndoVar+"="+base64.StdEncoding.EncodeToString(b))
}

// index maps names to values; the last entry counts.
func index(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, kv := range env {
		if name, v, ok := strings.Cut(kv, "="); ok {
			m[name] = v
		}
	}
	return m
}
