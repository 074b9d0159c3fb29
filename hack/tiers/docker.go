package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
)

// dockerDisk and dockerMemory are what the engine, its images and its containers need,
// with room to spare.
const (
	dockerDisk   = 2 << 30
	dockerMemory = 1 << 30
)

// probeDocker tries the namespaces that the engine of the tests lives in.
func probeDocker(ctx context.Context) string {
	if missingDocker(ctx) != "" {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return "neither dockerd and docker-compose nor apt-get to install them with"
		}
	}
	if free := diskFree("."); free < dockerDisk {
		return fmt.Sprintf("%s of disk are free, the images need %s", gib(free), gib(dockerDisk))
	}
	if free := memoryAvailable(); free < dockerMemory {
		return fmt.Sprintf("%s of memory are free, the engine needs %s", gib(free), gib(dockerMemory))
	}
	return probeNamespaces(ctx)
}

// missingDocker says that the engine would have to be installed, which nobody's machine
// gets without being asked for.
func missingDocker(ctx context.Context) string {
	for _, program := range []string{"/usr/sbin/dockerd", "/usr/bin/docker-compose", "/bin/busybox", "musl-gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed; make test-docker installs Debian's docker.io, docker-compose, busybox-static and musl-tools"
		}
	}
	for dir, program := range map[string]string{"integration/lab": "./cmd/engine", "integration/lab/compose": "github.com/docker/compose/v2/cmd"} {
		list := exec.CommandContext(ctx, goCmd(), "list", "-deps", program)
		list.Dir = dir
		if err := list.Run(); err != nil {
			return "the modules of " + dir + " are not here; make test-docker downloads them"
		}
	}
	return ""
}

// meshedLab is labBuild with Istio.
var meshedLab = step{name: "build", kind: prepare, argv: append(slices.Clone(labBuild.argv), "--mesh")}

// dockerSteps runs the tests of containers beside an engine of their own.
func dockerSteps(ctx context.Context) ([]step, error) {
	steps := []step{
		{name: "build", kind: prepare, argv: []string{"hack/docker-build.sh"}},
		{
			name: "containers", kind: testBinary, pkg: module + "/integration/containers",
			argv: []string{"hack/docker-run.sh", "--", "bin/containers.test", "-test.v=test2json", "-test.timeout=20m"},
		},
	}
	inMesh := step{
		name: "containers in a mesh", kind: testBinary, pkg: module + "/integration(docker)",
		argv: onLaptop([]string{"--mesh", "--docker"}, e2eTests, "-test.v=test2json", "-test.timeout=20m", "-test.run", containerTests),
	}
	if inMesh.skip = probeMesh(ctx); inMesh.skip == "" {
		inMesh.skip = missingMesh(ctx) // the mesh tier, which comes before, has compiled it
	}
	if inMesh.skip == "" {
		steps = append(steps, meshedLab)
	}
	return append(steps, inMesh), nil
}
