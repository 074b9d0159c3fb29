// Package containers holds the tests of Docker network mode, with the build tag
// docker. They run as root beside a Docker engine in namespaces of its own
// (hack/docker-run.sh) and use borrownet as an ordinary user who may use the
// engine, against the built-in cluster of `borrownet demo`. `make test-docker`
// builds and runs them.
package containers
