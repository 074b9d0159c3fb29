package main

import "context"

// labBuild builds everything that a lab run needs; what is up to date costs seconds.
func labBuild() []step {
	return []step{
		{name: "lab-build", kind: prepare, argv: []string{"hack/lab-build.sh"}},
		{name: "build", kind: prepare, argv: []string{"make", "--no-print-directory", "build", "agent-image", "REF=lab.local/borrownet-agent:1"}},
	}
}

// labSteps runs the end-to-end tests on the lab's laptop.
func labSteps(context.Context) ([]step, error) {
	const tests = "bin/integration.test"
	return append(labBuild(),
		step{name: "go test -c", kind: prepare, env: []string{"CGO_ENABLED=0"}, argv: []string{goCmd(), "test", "-c", "-tags", "lab", "-o", tests, "./integration"}},
		step{
			name: "lab run", kind: testBinary, pkg: module + "/integration",
			argv: []string{"hack/lab-run.sh", tests, "-test.v=test2json", "-test.timeout=40m"},
		},
	), nil
}

// benchSteps measures every row once: whether the bench still works, not how fast things are.
func benchSteps(context.Context) ([]step, error) {
	return append(labBuild(),
		step{name: "go build", kind: prepare, env: []string{"CGO_ENABLED=0"}, argv: []string{goCmd(), "build", "-o", "bin/bench", "./integration/bench"}},
		step{name: "bench", kind: report, argv: []string{"hack/lab-run.sh", "bin/bench", "-rounds", "1", "-seconds", "1"}},
	), nil
}
