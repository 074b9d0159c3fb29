// Package doctor looks for what keeps borrownet from working, on this machine and
// in a cluster, without changing either.
package doctor

import "github.com/borrownet/borrownet/cmd/internal/fault"

// State is how a check went.
type State string

// The states of a check.
const (
	OK   State = "ok"
	Warn State = "warn" // borrownet works, but less well than it could
	Fail State = "fail" // it does not
)

// Check is one thing that was looked at.
type Check struct {
	Name  string     `json:"name"`
	State State      `json:"state"`
	Found string     `json:"found"`          // how it is
	Hint  string     `json:"hint,omitempty"` // what to do, unless all is well
	Code  fault.Code `json:"code,omitempty"` // what a command fails with because of it; of Fail only
	ID    string     `json:"id,omitempty"`   // name of the error, which borrownet explain says more of
}

func ok(name, found string) Check { return Check{Name: name, State: OK, Found: found} }

func warn(name, found, hint string) Check {
	return Check{Name: name, State: Warn, Found: found, Hint: hint}
}

func fail(name string, code fault.Code, found, hint string) Check {
	return Check{Name: name, State: Fail, Found: found, Hint: hint, Code: code}
}

// failed is a check that failed with err.
func failed(name string, err error) Check {
	f := fault.From(err)
	c := fail(name, f.Code, f.Error(), f.Hint)
	c.ID = f.ID
	return c
}

// Verdict returns the code of the first check that failed, or 0.
func Verdict(checks []Check) fault.Code {
	for _, c := range checks {
		if c.State == Fail {
			return c.Code
		}
	}
	return 0
}
