package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestGateways(t *testing.T) {
	if !littleEndian {
		t.Skip("the table below is a little-endian machine's")
	}
	v4 := gateways4(strings.NewReader("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"))
	if want := []netip.Addr{netip.MustParseAddr("10.244.0.1")}; !slices.Equal(v4, want) {
		t.Errorf("IPv4: %v, want %v", v4, want)
	}
	const none = "00000000000000000000000000000000"
	v6 := gateways6(strings.NewReader(
		none + " 00 " + none + " 00 fd100244000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n" +
			"fd100244000000000000000000000000 40 " + none + " 00 " + none + " 00000100 00000001 00000000 00000001     eth0\n"))
	if want := []netip.Addr{netip.MustParseAddr("fd10:244::1")}; !slices.Equal(v6, want) {
		t.Errorf("IPv6: %v, want %v", v6, want)
	}
}
