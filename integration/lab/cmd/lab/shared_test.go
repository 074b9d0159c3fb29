package main

import (
	"reflect"
	"testing"
)

// TestUpHandsOptionsOn: what `lab up` is told about the lab reaches the process that holds it.
func TestUpHandsOptionsOn(t *testing.T) {
	given := []string{"--mesh", "--flux", "--docker", "--node-first", "--image", "/one.tar", "--image", "/two.tar"}
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
		t.Errorf("the lab that is held: %+v, want %+v", held, up)
	}
}
