package cni

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestOnlyIPv4(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		want       bool
	}{
		{"v4", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=api-v4-7d9-x", true},
		{"dual", "K8S_POD_NAME=api-7d9-x;K8S_POD_NAMESPACE=shop", false},
		{"namespace", "K8S_POD_NAMESPACE=api-v4;K8S_POD_NAME=api", false},
		{"none", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := onlyIPv4(tt.args); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWithoutIPv6(t *testing.T) {
	const in = `{"type":"lab-bridge","prevResult":{"a":1},"ipam":{"type":"host-local",
		"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}`
	const want = `{"type":"lab-bridge","prevResult":{"a":1},"ipam":{"type":"host-local",
		"ranges":[[{"subnet":"10.0.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`
	got, err := withoutIPv6([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if g, w := decode(t, got), decode(t, []byte(want)); !reflect.DeepEqual(g, w) {
		t.Errorf("got %v, want %v", g, w)
	}
	if _, err := withoutIPv6([]byte(`{}`)); err == nil {
		t.Error("a configuration without ipam was accepted")
	}
}

func decode(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
