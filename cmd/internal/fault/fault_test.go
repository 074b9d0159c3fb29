package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestErrorText(t *testing.T) {
	tests := []struct {
		name string
		err  Error
		want string
	}{
		{"all", Error{Op: "find", Object: "pod shop/api", Reason: "not found"}, "find pod shop/api: not found"},
		{"op_only", Error{Op: "interrupted"}, "interrupted"},
		{"no_object", Error{Op: "start daemon", Reason: "timeout"}, "start daemon: timeout"},
		{"cause_stands_in", Error{Op: "read", Object: "x", Err: errors.New("gone")}, "read x: gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFrom(t *testing.T) {
	if From(nil) != nil {
		t.Error("nil error gave a fault")
	}
	inner := &Error{Code: Agent, Op: "attach agent", Hint: "ask"}
	if got := From(fmt.Errorf("up: %w", inner)); got != inner {
		t.Errorf("wrapped fault: got %v", got)
	}
	if got := From(fmt.Errorf("dial: %w", context.Canceled)).Code; got != Interrupted {
		t.Errorf("canceled: got code %d", got)
	}
	if got := From(errors.New("boom")); got.Code != General || got.Error() != "boom" {
		t.Errorf("plain error: got %d %q", got.Code, got)
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	want := &Error{Code: Agent, Op: "pull image", Object: "example.org/agent:1", Reason: "not found", Hint: "borrownet up --agent-image …"}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Error
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got, cmpopts.IgnoreFields(Error{}, "Err")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
