package main

import (
	"reflect"
	"testing"
)

// TestUpHandsOptionsOn: what `lab up` is told about the lab reaches the process that holds it.
func TestUpHandsOptionsOn(t *testing.T) {
	for _, given := range [][]string{
		{"--mesh", "--flux", "--docker", "--node-first", "--image", "/one.tar", "--image", "/two.tar"},
		{"--nodes", "2"},
	} {
		up, err := parse("up", given)
		if err != nil {
			t.Fatal(err)
		}
		held, err := parse(holdVerb, up.holdArgs("/src"))
		if err != nil {
			t.Fatal(err)
		}
		up.checkout = "/src"
		if !reflect.DeepEqual(up, held) {
			t.Errorf("%q: the lab that is held: %+v, want %+v", given, held, up)
		}
	}
}

// TestNodes: a lab has one node or two, and no mesh with two.
func TestNodes(t *testing.T) {
	for _, given := range [][]string{{"--nodes", "0"}, {"--nodes", "3"}, {"--nodes", "2", "--mesh"}} {
		if _, err := parse("up", given); err == nil {
			t.Errorf("%q is taken", given)
		}
	}
	if o, err := parse("up", nil); err != nil || o.nodes != 1 {
		t.Errorf("without the flag: %+v, %v", o, err)
	}
}
