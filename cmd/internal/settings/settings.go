// Package settings reads borrownet.yaml, which belongs to a project and stands
// in its directory.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// Name is the file's name.
const Name = "borrownet.yaml"

// maxSize bounds the file, in bytes.
const maxSize = 1 << 20

// Settings are what the file says.
type Settings struct {
	AgentImage string `json:"agentImage"`
	// Publish and Local are values of the flags of these names, which add to them.
	Publish         []string `json:"publish"`
	Local           []string `json:"local"`
	RemoteLocalhost []uint16 `json:"remoteLocalhost"`
}

// Read reads the file at path. A missing file says nothing.
func Read(path string) (Settings, error) {
	var s Settings
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(text, &s)
	}
	if err != nil {
		return Settings{}, &fault.Error{
			Code: fault.Usage, Op: "read", Object: path, Reason: err.Error(), Err: err,
			Hint: "what it may say: agentImage: REGISTRY/borrownet-agent:TAG; publish: [\"18080:8080\"]; local: [192.0.2.0/24]; remoteLocalhost: [15000]",
		}
	}
	return s, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("more than %d bytes", maxSize)
	}
	return text, err
}
