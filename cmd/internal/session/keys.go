package session

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/netstack/wg"
)

const keySuffix = ".key"

// maxSlots bounds the sessions of one pod at a time.
const maxSlots = 16

// Keys keeps the client's private keys, one file per target, in memory where there
// is a place for that, and closed to others. A key outlives its session, so that the next one is
// recognised by the agent that the session left parked.
type Keys struct {
	dir *rundir.Dir

	mu    sync.Mutex
	inUse map[string]bool // file names
}

// NewKeys returns the keys that belong to dir.
func NewKeys(dir *rundir.Dir) *Keys {
	if m, err := dir.Memory(); err == nil {
		dir = m
	}
	return &Keys{dir: dir, inUse: map[string]bool{}}
}

// Files are the paths of the keys' files.
func (k *Keys) Files() []string {
	paths, err := filepath.Glob(k.dir.Path("*" + keySuffix))
	if err != nil {
		return nil // the pattern is ours and valid
	}
	return paths
}

// IsKey reports whether name is that of a key file.
func IsKey(name string) bool { return strings.HasSuffix(name, keySuffix) }

// Key is a key in use by one session.
type Key struct {
	Private wg.PrivateKey
	keys    *Keys
	name    string
	fresh   bool // made now: no agent can know it
}

// keyFile is the content of a key's file.
type keyFile struct {
	Private wg.PrivateKey `json:"private"`
	Expires time.Time     `json:"expires"` // the agents that know it are gone by then
}

// Take returns the key for a target, the one of an earlier session if no other
// session uses it. Release must be called.
func (k *Keys) Take(target string, ttl time.Duration) (*Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for slot := range maxSlots {
		name := keyName(target, slot)
		if k.inUse[name] {
			continue
		}
		key := &Key{keys: k, name: name}
		if f, err := k.read(name); err == nil && time.Now().Before(f.Expires) {
			key.Private = f.Private
		} else {
			key.Private, key.fresh = wg.NewPrivateKey(), true
			if err := key.Keep(ttl); err != nil {
				return nil, err
			}
		}
		k.inUse[name] = true
		return key, nil
	}
	return nil, fmt.Errorf("the pod is borrowed by %d sessions already", maxSlots)
}

func keyName(target string, slot int) string {
	sum := sha256.Sum256([]byte(target))
	return hex.EncodeToString(sum[:8]) + "-" + strconv.Itoa(slot) + keySuffix
}

// Drop removes the keys for a target whose agents are all gone, and that no
// session uses.
func (k *Keys) Drop(t *kube.Target) error {
	var errs []error
	for slot := range maxSlots {
		if err := os.Remove(k.dir.Path(keyName(keyOwner(t), slot))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keyOwner is what a key of a session on t is kept for.
func keyOwner(t *kube.Target) string { return t.Context + "/" + t.UID }

func (k *Keys) read(name string) (keyFile, error) {
	var f keyFile
	text, err := os.ReadFile(k.dir.Path(name))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("decode key file: %w", err)
	}
	return f, nil
}

// Fresh reports whether the key was made by this Take.
func (k *Key) Fresh() bool { return k.fresh }

// Keep saves the key for ttl from now: an agent that knows it has just started.
func (k *Key) Keep(ttl time.Duration) error {
	text, err := json.Marshal(keyFile{Private: k.Private, Expires: time.Now().Add(ttl)})
	if err != nil {
		return fmt.Errorf("encode key file: %w", err)
	}
	temp, err := k.keys.dir.WriteTemp(k.name+".*", text)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := os.Rename(temp, k.keys.dir.Path(k.name)); err != nil {
		return errors.Join(fmt.Errorf("write key file: %w", err), os.Remove(temp))
	}
	return nil
}

// Forget removes the key's file: no agent will need it again.
func (k *Key) Forget() error {
	if err := os.Remove(k.keys.dir.Path(k.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove key file: %w", err)
	}
	return nil
}

// Release ends the session's use of the key. Its file stays.
func (k *Key) Release() {
	k.keys.mu.Lock()
	defer k.keys.mu.Unlock()
	delete(k.keys.inUse, k.name)
}

// Sweep removes the files of keys that no agent can know any more.
func (k *Keys) Sweep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, path := range k.Files() {
		name := filepath.Base(path)
		if k.inUse[name] {
			continue
		}
		if f, err := k.read(name); err != nil || time.Now().After(f.Expires) {
			_ = os.Remove(path) // tried again by the next sweep
		}
	}
}
