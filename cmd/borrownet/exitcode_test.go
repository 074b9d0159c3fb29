package main

import (
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// TestExitCodes: each code that there is can be explained.
func TestExitCodes(t *testing.T) {
	for _, code := range []fault.Code{
		0, fault.General, fault.Usage, fault.Cluster, fault.Target, fault.Agent, fault.Laptop, fault.Hook,
		fault.NoSession, fault.SessionExists, fault.SessionLost, fault.NoDataPath, fault.Interrupted, exitOurs, exitNoExec, exitNotFound,
	} {
		text, known := explainCode(int(code))
		if !known {
			t.Errorf("%d is not explained", code)
		}
		if code != 0 && code != fault.Interrupted && !strings.Contains(text, "\n  - ") {
			t.Errorf("%d: nothing to look at:\n%s", code, text)
		}
	}
	if text, known := explainCode(77); known {
		t.Errorf("77 is explained: %s", text)
	}
}
