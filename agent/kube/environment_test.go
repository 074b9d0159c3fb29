package kube

import (
	"testing"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func TestEnvironmentDeclares(t *testing.T) {
	from := func(prefix string) api.EnvFromSource { return api.EnvFromSource{Prefix: prefix} }
	one := environmentOf(&api.Container{Env: []api.EnvVar{{Name: "MODE"}}})
	some := environmentOf(&api.Container{EnvFrom: []api.EnvFromSource{from("DB_")}})
	all := environmentOf(&api.Container{EnvFrom: []api.EnvFromSource{from("DB_"), from("")}})
	for _, tt := range []struct {
		name string
		env  Environment
		want bool
	}{
		{"MODE", one, true},
		{"MODE2", one, false},
		{"mode", one, false},
		{"KUBERNETES_SERVICE_HOST", one, true},
		{"KUBERNETES_PORT_443_TCP_ADDR", one, true},
		{"ORDERS_SERVICE_PORT_HTTP_WEB", one, true},
		{"ORDERS_PORT", one, true},
		{"LD_PRELOAD", one, false},
		{"X_SERVICE_HOST_X", one, false},
		{"DB_PASSWORD", some, true},
		{"PASSWORD", some, false},
		{"PASSWORD", all, true},
	} {
		if got := tt.env.Declares(tt.name); got != tt.want {
			t.Errorf("%+v declares %s: %v, want %v", tt.env, tt.name, got, tt.want)
		}
	}
}
