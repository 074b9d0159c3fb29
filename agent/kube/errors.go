package kube

// Error is a failure that the user can understand and do something about.
type Error struct {
	Op     string // what was tried, e.g. "attach to"
	Object string // on what, e.g. "pod shop/api-7d4b"
	Reason string // why it failed, one sentence without a period
	Hint   string // the exact next step, may be empty
	Err    error  // cause, may be nil
}

// Error returns operation, object and reason.
func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	return s + ": " + e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
