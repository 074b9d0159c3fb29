// Package printabletest finds what prints foreign texts as they are.
package printabletest

import (
	"reflect"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/printable"
)

// Hostile is a text of a cluster that is not to be trusted: it clears the screen, renames
// the window, rings, colours, deletes, overwrites, turns its direction, is no UTF-8, and
// forges a line and a cell.
const Hostile = "x\x1b[2J\x1b]0;owned\a\u009b31m\x7f\r\b\u202e\u2028\u2066\xffy\nforged: yes\tz"

// depth bounds what refers to itself.
const depth = 8

// Poison makes every exported text of what v points to Hostile, those in lists, maps and
// what is pointed to as well, which it makes if there are none.
func Poison(v any) { poison(reflect.ValueOf(v).Elem(), 0) }

func poison(v reflect.Value, deep int) {
	if deep > depth || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(Hostile)
	case reflect.Struct:
		for i := range v.NumField() {
			poison(v.Field(i), deep+1)
		}
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		poison(v.Elem(), deep+1)
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		for i := range v.Len() {
			poison(v.Index(i), deep+1)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		poison(key, deep+1)
		poison(value, deep+1)
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(key, value)
	}
}

// Inert fails the test if a terminal would obey anything in text but the ends of lines.
func Inert(t *testing.T, where, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && printable.Drives(r) {
			t.Errorf("%s: a terminal obeys %q in %q", where, r, text)
			return
		}
	}
}
