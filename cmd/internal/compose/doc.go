// Package compose makes of a person's compose file one in which some services are
// pods: the networks, names and ports of such a service move to a container that
// owns a session's network namespace, and the service joins that.
//
// The compose tool itself reads the person's files (its command config): files,
// overrides, profiles and variables mean what they mean to it. What is changed
// here is its answer, as YAML nodes, so that what is not changed stays as it is
// to the letter.
package compose
