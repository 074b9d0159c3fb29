// Command standin stands in for the parts of clouds that hand out identities to
// pods, and checks what those check: AWS's STS, the agent of EKS Pod Identity,
// the metadata servers of GKE and of a plain node, and Microsoft Entra.
//
// It runs in the node's network, where the agents of clouds run, and asks the API
// server for its signing keys, its pods and its ServiceAccounts.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var (
		sts      = flag.String("sts", "", "`ADDRESS` of AWS's STS")
		podID    = flag.String("pod-identity", "", "`ADDRESS` of the agent of EKS Pod Identity")
		podID6   = flag.String("pod-identity6", "", "its `ADDRESS` of the other family")
		metadata = flag.String("metadata", "", "`ADDRESS` of the metadata server")
		entra    = flag.String("entra", "", "`ADDRESS` of Microsoft Entra, over TLS")
		cert     = flag.String("cert", "", "`FILE` with its certificate")
		key      = flag.String("key", "", "`FILE` with the certificate's key")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c, err := newCluster(ctx)
	if err != nil {
		return err
	}
	aws := newAWS(c)
	failed := make(chan error, 5)
	serve := func(addr string, h http.HandlerFunc, secure bool) error {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: logged(h), ReadHeaderTimeout: 10 * time.Second}
		go func() { // ends with the process
			if secure {
				failed <- srv.ServeTLS(ln, *cert, *key)
				return
			}
			failed <- srv.Serve(ln)
		}()
		return nil
	}
	err = errors.Join(
		serve(*sts, aws.sts, false), serve(*podID, aws.podIdentity, false), serve(*podID6, aws.podIdentity, false),
		serve(*metadata, (&google{cluster: c}).serve, false), serve(*entra, (&entraID{cluster: c}).serve, true))
	if err != nil {
		return err
	}
	log.Print("ready")
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// logged says who asked for what; what is asked with is secret.
func logged(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s %s%s", r.RemoteAddr, r.Method, r.Host, r.URL.Path)
		h(w, r)
	})
}

// caller is the address that a request came from.
func caller(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
