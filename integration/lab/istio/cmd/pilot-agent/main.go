// Command pilot-agent is what runs in a sidecar beside Envoy, from Istio's own
// module. It writes and checks the redirect rules too (pilot-agent istio-iptables).
package main

import (
	"os"

	"istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/cmd/pilot-agent/app"
	istioagent "istio.io/istio/pkg/istio-agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/sds"
)

func main() {
	log.EnableKlogWithCobra()
	if err := app.NewRootCommand(certificates).Execute(); err != nil {
		log.Error(err)
		os.Exit(1)
	}
}

// certificates serves the workload's certificate to Envoy.
func certificates(o *security.Options, s security.SecretManager, key *v1alpha1.PrivateKeyProvider) istioagent.SDSService {
	return sds.NewServer(o, s, key)
}
