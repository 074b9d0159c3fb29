// Command cloud asks the libraries of clouds and of Kubernetes, set up by nothing but
// their defaults, who the process is, and prints the answer. It knows nothing of
// borrownet.
//
//	cloud aws | google | azure | pods
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"cloud.google.com/go/auth/credentials"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// limit is enough for a library to have tried all that it knows.
const limit = 20 * time.Second

func main() {
	ask := map[string]func(context.Context) (string, error){"aws": aws, "google": google, "azure": azure, "pods": pods}
	if len(os.Args) != 2 || ask[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: cloud aws | google | azure | pods")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := ask[os.Args[1]](ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(answer)
}

// aws says which role the default chain of the AWS SDK finds.
func aws(ctx context.Context) (string, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", err
	}
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return *out.Arn, nil
}

// google says what Google's default credentials are good for.
func google(ctx context.Context) (string, error) {
	creds, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"}})
	if err != nil {
		return "", err
	}
	token, err := creds.Token(ctx)
	if err != nil {
		return "", err
	}
	return token.Value, nil
}

// azure says what the credential of a workload's identity is good for. The lab's
// stand-in is no public cloud, which has to be said.
func azure(ctx context.Context) (string, error) {
	cred, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{DisableInstanceDiscovery: true})
	if err != nil {
		return "", err
	}
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.example.org/.default"}})
	return token.Token, err
}

// pods lists those of the pod's namespace by the in-cluster configuration, and says
// what becomes of a look at Secrets.
func pods(ctx context.Context) (string, error) {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return "", err
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return "", err
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "", err
	}
	of := func(resource string) dynamic.ResourceInterface {
		return client.Resource(schema.GroupVersionResource{Version: "v1", Resource: resource}).Namespace(string(namespace))
	}
	list, err := of("pods").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	var lines []string
	for _, p := range list.Items {
		lines = append(lines, "pod "+p.GetName())
	}
	if _, err = of("secrets").List(ctx, metav1.ListOptions{}); err == nil {
		lines = append(lines, "secrets can be listed")
	} else {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n"), nil
}
