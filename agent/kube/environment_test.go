package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEnvironmentDeclares(t *testing.T) {
	from := func(prefix string) corev1.EnvFromSource { return corev1.EnvFromSource{Prefix: prefix} }
	one := environmentOf(&corev1.Container{Env: []corev1.EnvVar{{Name: "MODE"}}})
	some := environmentOf(&corev1.Container{EnvFrom: []corev1.EnvFromSource{from("DB_")}})
	all := environmentOf(&corev1.Container{EnvFrom: []corev1.EnvFromSource{from("DB_"), from("")}})
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
