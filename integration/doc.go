// Package integration holds the tests of the repository as a whole.
//
// Without build tags it tests the repository itself: package documentation,
// import layers, formatting, links, and that every promise in docs/proof.md
// names a test that exists. Those tests need only the go command.
//
// With the tag lab it holds the end-to-end tests, which run on the laptop of a
// lab (integration/lab): a network namespace that reaches the API server of a
// real Kubernetes and nothing else of it, as an unprivileged user, with
// KUBECONFIG set, borrownet on PATH and the programs of integration/apps
// running in the namespace shop. `make test-lab` builds and runs them. Those whose
// names begin with TestMesh need a lab with a service mesh: `make test-mesh`.
package integration
