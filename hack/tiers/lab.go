package main

import (
	"context"
	"os/exec"
	"slices"
)

// labBuild builds everything that a lab run needs; what is up to date costs seconds.
var labBuild = step{name: "build", kind: prepare, argv: []string{"hack/e2e-build.sh"}}

// missingLab says that Kubernetes is not compiled yet.
func missingLab(ctx context.Context) string {
	if exec.CommandContext(ctx, "hack/lab-build.sh", "--built").Run() == nil {
		return ""
	}
	return "Kubernetes is not compiled yet, which takes about ten minutes on two cores"
}

// missingMesh says that Kubernetes, Istio or Flux is not compiled yet.
func missingMesh(ctx context.Context) string {
	if exec.CommandContext(ctx, "hack/lab-build.sh", append(slices.Clone(meshFlags), "--built")...).Run() == nil {
		return ""
	}
	return "Kubernetes, Istio or Flux is not compiled yet, which takes ten to thirty minutes on two cores"
}

// meshFlags are what the lab of the mesh tier has more than others. Flux is in it since
// it costs seconds there, and sees the pods with what Istio adds to them.
var meshFlags = []string{"--mesh", "--flux"}

// meshBuild is labBuild with Istio and Flux.
var meshBuild = step{name: "build", kind: prepare, argv: append(slices.Clone(labBuild.argv), meshFlags...)}

// onLaptop is a command on the laptop of a lab that is started for it.
func onLaptop(flags []string, command ...string) []string {
	argv := append([]string{"hack/lab-run.sh", "--fresh", "--image", "bin/hostile-agent-image.tar", "--image", "bin/standin-image.tar"}, flags...)
	return append(append(argv, "--"), command...)
}

// closedTUN are the tests that run once more where users may not open /dev/net/tun: the
// main job, datagrams, and that nothing stays.
const closedTUN = "^(TestProgramsCallServicesAsThePod|TestUnconnectedUDP|TestIPv6|TestNothingStaysOnTheLaptop)$"

// meshTests are the tests that need a mesh or Flux; meshed are those that run in such a
// lab: they and what a sidecar could break.
const (
	meshTests = "^Test(Mesh|Flux)"
	meshed    = meshTests + "|^(TestMirror|TestLaptopIsOutside|TestNothingOfTheClusterChanges|TestPodsNetworkIsLeftAlone|TestDirect|TestParkedAgentIsTakenAgain|TestStopAgent|" +
		"TestHalfClose|TestGigabyteEachWay|Test500ConnectionsAtOnce|TestUnconnectedUDP|TestProtocolsAsInThePod|TestNamesAsInThePod)$"
)

// nodeTests are the tests that need a lab of two nodes, and minutes.
const nodeTests = "^TestNodes"

// containerTests are the tests that need an engine on the laptop.
const containerTests = "^TestContainers"

// e2eTests is the compiled package of the end-to-end tests.
const e2eTests = "bin/integration.test"

// labSteps runs the end-to-end tests on the lab's laptop.
func labSteps(context.Context) ([]step, error) {
	return []step{
		labBuild,
		{
			// Of a module of its own, and as root: it starts and ends labs.
			name: "the lab itself", kind: goTest,
			argv: []string{goCmd(), "test", "-C", "integration/lab", "-json", "-count=1", "-timeout", testTimeout,
				".", "./cmd/lab", "./internal/cgroup", "./internal/cluster", "./internal/cni", "./internal/node", "./internal/state"},
		},
		{
			name: "lab", kind: testBinary, pkg: module + "/integration",
			argv: onLaptop(nil, e2eTests, "-test.v=test2json", "-test.timeout=40m", "-test.skip", meshTests+"|^TestSoak|"+nodeTests+"|"+containerTests),
		},
		{
			name: "lab without TUN", kind: testBinary, pkg: module + "/integration(no-tun)",
			argv: onLaptop([]string{"--no-tun"}, e2eTests, "-test.v=test2json", "-test.timeout=10m", "-test.run", closedTUN),
		},
	}, nil
}

// meshSteps runs the tests of the mesh on the laptop of a lab that has one.
func meshSteps(context.Context) ([]step, error) {
	return []step{
		meshBuild,
		{
			name: "lab with a mesh", kind: testBinary, pkg: module + "/integration(mesh)",
			argv: onLaptop(meshFlags, e2eTests, "-test.v=test2json", "-test.timeout=20m", "-test.run", meshed),
		},
	}, nil
}

// benchSteps measures every row once: whether the bench still works, and nothing is wrong or silently missing; not how fast
// things are.
func benchSteps(context.Context) ([]step, error) {
	return []step{
		labBuild,
		{name: "bench", kind: report, argv: onLaptop(nil, "bin/bench", "-rounds", "1", "-seconds", "0.5", "-kills", "2", "-pairs", "1", "-max-pairs", "1", "-window", "1s", "-developers", "2", "-sessions", "2")},
	}, nil
}
