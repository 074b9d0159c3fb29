package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/doctor"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// TestOutputIsDocumented wants every field of -o json in docs/output.md: who reads
// it relies on that page.
func TestOutputIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[session.Status](), reflect.TypeFor[kube.Offers](), reflect.TypeFor[doctor.Check]()} {
		for name := range fields(typ, map[reflect.Type]bool{}) {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/output.md has no `%s`, a field in %v", name, typ)
			}
		}
	}
}

// fields returns the JSON names of a struct's fields, and of those below it.
func fields(typ reflect.Type, seen map[reflect.Type]bool) map[string]bool {
	out := map[string]bool{}
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return fields(typ.Elem(), seen)
	case reflect.Struct:
	default:
		return out
	}
	if seen[typ] || !strings.Contains(typ.PkgPath(), "borrownet") {
		return out
	}
	seen[typ] = true
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name != "" {
			out[name] = true
		}
		for below := range fields(f.Type, seen) {
			out[below] = true
		}
	}
	return out
}
