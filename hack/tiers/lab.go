package main

import (
	"context"
)

// labSteps builds what the end-to-end tests need and runs them on the lab's laptop.
func labSteps(context.Context) ([]step, error) {
	const tests = "bin/integration.test"
	return []step{
		{name: "lab-build", kind: prepare, argv: []string{"hack/lab-build.sh"}},
		{name: "build", kind: prepare, argv: []string{"make", "--no-print-directory", "build", "agent-image", "REF=lab.local/borrownet-agent:1"}},
		{name: "go test -c", kind: prepare, env: []string{"CGO_ENABLED=0"}, argv: []string{goCmd(), "test", "-c", "-tags", "lab", "-o", tests, "./integration"}},
		{
			name: "lab run", kind: testBinary, pkg: module + "/integration",
			argv: []string{"hack/lab-run.sh", tests, "-test.v=test2json", "-test.timeout=40m"},
		},
	}, nil
}
