// Package settings reads borrownet.yaml, which belongs to a project and stands
// in its directory.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
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
	// Publish, Local, RemoteLocalhost and Metadata are values of the flags of these names, which add to them.
	Publish         []string `json:"publish"`
	Local           []string `json:"local"`
	RemoteLocalhost []uint16 `json:"remoteLocalhost"`
	Metadata        []string `json:"metadata"`
	// Hosts are the addresses of names that nobody is asked for.
	Hosts map[string]Addrs `json:"hosts"`
}

// Addrs are one address, or a list of them.
type Addrs []netip.Addr

// UnmarshalJSON implements json.Unmarshaler.
func (a *Addrs) UnmarshalJSON(text []byte) error {
	var one netip.Addr
	if err := json.Unmarshal(text, &one); err == nil && one.IsValid() {
		*a = Addrs{one}
		return nil
	}
	var list []netip.Addr
	if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
		return fmt.Errorf("%s is not an IP address, or a list of them", text)
	}
	*a = list
	return nil
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
			Hint: "what it may say: agentImage: REGISTRY/borrownet-agent:TAG; publish: [\"18080:8080\"]; local: [192.0.2.0/24, corp.example.org]; remoteLocalhost: [15000]; metadata: [169.254.169.254]; hosts: {db.example.org: 192.0.2.7}",
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
