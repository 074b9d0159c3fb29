package kube

import (
	"maps"
	"os"
	"slices"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Secrets returns what in the kubeconfig, and in the files that it names, must not
// be shown to others. What cannot be read has none.
func Secrets(f Flags) []string {
	out := nonEmpty(f.Token)
	raw, err := loadingRules(f).Load()
	if err != nil {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(raw.AuthInfos)) {
		out = append(out, secretsOf(raw.AuthInfos[name])...)
	}
	return out
}

func secretsOf(user *clientcmdapi.AuthInfo) []string {
	out := []string{user.Token, user.Password, string(user.ClientKeyData)}
	for _, path := range []string{user.TokenFile, user.ClientKey} {
		if b, err := os.ReadFile(path); err == nil {
			out = append(out, string(b))
		}
	}
	if p := user.AuthProvider; p != nil {
		out = append(out, slices.Collect(maps.Values(p.Config))...)
	}
	if e := user.Exec; e != nil {
		for _, v := range e.Env {
			out = append(out, v.Value)
		}
	}
	return out
}
