package main

import (
	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/kube"
)

func (a *app) rbac() *cobra.Command {
	var (
		cfg                                                    kube.RoleConfig
		workloads, targetImage, attach, websocket, events, gke bool
	)
	cmd := &cobra.Command{
		Use: "rbac [-n NAMESPACE]", Short: "print the rights that borrownet needs", Long: rbacLong, Example: rbacExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range []struct {
				on      bool
				feature kube.Feature
			}{{workloads, kube.Workloads}, {targetImage, kube.TargetAsImage}, {attach, kube.OverAttach}, {websocket, kube.WebSocket}, {events, kube.Events}, {gke, kube.Google}} {
				if f.on {
					cfg.Features = append(cfg.Features, f.feature)
				}
			}
			text, err := kube.RBAC(cfg)
			if err != nil {
				return usage(err.Error(), cmd.CommandPath()+" -n shop --workloads --subject user:jane")
			}
			return a.ui.print(string(text))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&cfg.Namespace, "namespace", "n", "", "`NAMESPACE` of Role and RoleBinding (default: the one kubectl applies to)")
	f.StringVar(&cfg.Name, "name", "borrownet", "`NAME` of Role and RoleBinding")
	f.StringArrayVar(&cfg.Subjects, "subject", nil, "`WHO` gets the rights: user:NAME, group:NAME or serviceaccount:NAMESPACE/NAME; may be repeated")
	f.BoolVar(&workloads, "workloads", false, "targets may be named as deploy/x, svc/x or by a bare name, not only as a pod")
	f.BoolVar(&targetImage, "target-image", false, "--agent-image target works: the agent may be sent into a pod")
	f.BoolVar(&attach, "attach", false, "the link goes over pods/attach, and pods/portforward is not granted")
	f.BoolVar(&websocket, "websocket", false, "WebSocket may be used: it halves the round trip of calls, and passes proxies that let no SPDY pass")
	f.BoolVar(&events, "events", false, "a slow registry can be told from a slow node")
	f.BoolVar(&gke, "gke", false, "GKE's workload identity is recognised by the ServiceAccount's annotation")
	return cmd
}

func (a *app) policy() *cobra.Command {
	var (
		cfg         kube.PolicyConfig
		targetImage bool
		metadata    []string
	)
	cmd := &cobra.Command{
		Use: "policy --image REF@sha256:DIGEST | --registry PREFIX | --target-image", Short: "print an admission policy that lets only the agent in",
		Long: policyLong, Example: policyExample, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if targetImage {
				var err error
				if cfg.Binaries, err = carried(); err != nil {
					return err
				}
			}
			var err error
			if cfg.Metadata, err = parseMetadata(metadata); err != nil {
				return usage(err.Error(), cmd.CommandPath()+" --metadata 169.254.169.254")
			}
			text, err := kube.Policy(cfg)
			if err != nil {
				return usage(err.Error(), cmd.CommandPath()+" --image REGISTRY/borrownet-agent@sha256:DIGEST, as `make agent-image` prints it")
			}
			return a.ui.print(string(text))
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&cfg.Images, "image", nil, "`REF@sha256:DIGEST` of an image to admit, under any name with that digest; may be repeated")
	f.StringArrayVar(&cfg.Registries, "registry", nil, "`PREFIX`: admit every image of a registry, directory or repository; may be repeated")
	f.StringSliceVar(&metadata, "metadata", nil, "`ADDRESS` of a metadata service that agents may be started for, besides that of EKS Pod Identity in pods that use it; may be repeated")
	f.BoolVar(&cfg.NetRaw, "mirror", false, "admit agents that mirror: with NET_RAW, for the helper that opens their packet socket")
	f.BoolVar(&cfg.Direct, "direct", false, "admit agents that open a UDP port on the pod's address, for up --direct")
	f.BoolVar(&cfg.Attach, "attach", false, "admit agents whose link goes over attach, because port-forward is refused")
	f.BoolVar(&targetImage, "target-image", false, "admit --agent-image target with the agents that are beside this borrownet, checked in the pod by their SHA-256")
	f.StringVar(&cfg.Label, "label", kube.DefaultPolicyLabel, "`KEY=VALUE` of the namespaces that the policy holds in")
	f.StringVar(&cfg.Name, "name", kube.DefaultPolicyName, "`NAME` of policy and binding")
	f.DurationVar(&cfg.MaxTTL, "max-ttl", kube.DefaultPolicyMaxTTL, "longest `TIME` that an agent may ask for with --hard-ttl")
	return cmd
}
