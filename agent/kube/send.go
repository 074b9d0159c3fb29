package kube

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/wire"
)

// sendTimeout is how long receive.sh waits for the agent's program.
const sendTimeout = 2 * time.Minute

// greeting waits for the agent's greeting and, where its program has to be
// sent, sends it once it is asked for.
func (a *attachment) greeting(ctx context.Context, name string, reused, stdio bool) (wire.Hello, error) {
	if reused && stdio {
		if h, ok, err := a.greetingAgain(ctx, name); ok {
			return h, err
		}
	}
	if !a.fromTarget() {
		return a.readHello(ctx, a.target, name, helloTimeout, nil)
	}
	if reused { // it has its program already, unless who added it came no further
		if h, err := a.scanHello(ctx, a.target, name, url.Values{}, nil); err == nil {
			return h, nil
		}
	}
	ctx, fail := context.WithCancelCause(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer fail(nil)
	asked := false
	return a.readHello(ctx, a.target, name, helloTimeout+sendTimeout, func(line string) {
		if arch, ok := strings.CutPrefix(line, saySend); ok && !asked {
			asked = true
			sending.Go(func() { a.send(ctx, name, arch, fail) }) // ends with ctx at the latest
		}
	})
}

// send sends the agent's program for arch, and fails the attachment if that
// does not work.
func (a *attachment) send(ctx context.Context, name, arch string, fail context.CancelCauseFunc) {
	err := a.stream(ctx, name, arch)
	if err == nil || ctx.Err() != nil {
		return
	}
	if _, refused := errors.AsType[*apierrors.StatusError](err); !refused {
		// What became of the container says more than a connection that broke.
		if pause(ctx, errorGrace) != nil {
			return
		}
	}
	fail(err)
}

func (a *attachment) stream(ctx context.Context, container, arch string) error {
	i := slices.IndexFunc(a.spec.Binaries, func(b Binary) bool { return b.Arch == arch })
	if i < 0 {
		return fmt.Errorf("container %s asks for the agent of architecture %q", container, arch)
	}
	file, err := os.Open(a.spec.Binaries[i].Path)
	if err != nil {
		return err
	}
	defer file.Close()
	a.progress(fmt.Sprintf("sending the agent for %s, %.1f MB", arch, float64(a.spec.Binaries[i].Size)/1e6))
	return a.attachStdin(ctx, a.target, container, file)
}
