package agent

import (
	"os"
	"path/filepath"

	"github.com/borrownet/borrownet/agent/capture"
)

var _ Capturer = Kernel{}

// captureHelper is the program, beside the agent's, whose file has CAP_NET_RAW.
const captureHelper = "borrownet-capture"

// Capture implements Capturer.
func (Kernel) Capture(spec capture.Spec) (Capture, error) {
	helper := ""
	if exe, err := os.Executable(); err == nil {
		helper = filepath.Join(filepath.Dir(exe), captureHelper)
	}
	return capture.Open(spec, helper)
}
