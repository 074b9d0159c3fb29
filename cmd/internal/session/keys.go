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

// Keys keeps the client's private keys, one file per target, in memory, and closed to
// others. A key outlives its session, so that the next one is recognised by the agent that
// the session left parked. Where no file can be in memory, keys are in this process alone,
// and go with it: none is ever on a disk.
type Keys struct {
	dir *rundir.Dir // nil if there is no place in memory

	mu    sync.Mutex
	inUse map[string]bool    // file names
	held  map[string]keyFile // guarded by mu: by file name, if dir is nil
}

// NewKeys returns the keys that belong to dir.
func NewKeys(dir *rundir.Dir) *Keys {
	k := &Keys{inUse: map[string]bool{}, held: map[string]keyFile{}}
	if m, err := dir.Memory(); err == nil {
		k.dir = m
	}
	return k
}

// keysIn returns the names of the keys' files in dir.
func keysIn(dir *rundir.Dir) []string {
	paths, err := filepath.Glob(dir.Path("*" + keySuffix))
	if err != nil {
		return nil // the pattern is ours and valid
	}
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	return paths
}

// Secrets are the forms in which the keys of files could be written somewhere, which must
// not be in a report.
func (k *Keys) Secrets() []string {
	if k.dir == nil {
		return nil // only their daemon knows them
	}
	var out []string
	for _, name := range keysIn(k.dir) {
		f, err := readKey(k.dir, name)
		if err != nil {
			continue // it was removed just now
		}
		text, err := f.Private.MarshalText()
		if err == nil {
			out = append(out, string(text), hex.EncodeToString(f.Private[:]))
		}
	}
	return out
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
		if f, err := k.readLocked(name); err == nil && time.Now().Before(f.Expires) {
			key.Private = f.Private
		} else {
			key.Private, key.fresh = wg.NewPrivateKey(), true
			if err := k.writeLocked(name, keyFile{key.Private, time.Now().Add(ttl)}); err != nil {
				return nil, err
			}
		}
		k.inUse[name] = true
		return key, nil
	}
	return nil, errAllTaken
}

// errAllTaken reports that no more keys are for a pod.
var errAllTaken = fmt.Errorf("it is borrowed by %d sessions already", maxSlots)

// hint says what to do about an error of Take.
func (k *Keys) hint(err error) string {
	if errors.Is(err, errAllTaken) {
		return "borrownet status lists them, borrownet down NAME ends one"
	}
	return "is there room? df -h " + k.dir.String()
}

func keyName(target string, slot int) string {
	sum := sha256.Sum256([]byte(target))
	return hex.EncodeToString(sum[:8]) + "-" + strconv.Itoa(slot) + keySuffix
}

// Drop removes the keys for a target whose agents are all gone, and that no
// session uses.
func (k *Keys) Drop(t *kube.Target) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for slot := range maxSlots {
		errs = append(errs, k.removeLocked(keyName(keyOwner(t), slot)))
	}
	return errors.Join(errs...)
}

// keyOwner is what a key of a session on t is kept for.
func keyOwner(t *kube.Target) string { return t.Context + "/" + t.UID }

func (k *Keys) readLocked(name string) (keyFile, error) {
	if k.dir != nil {
		return readKey(k.dir, name)
	}
	f, ok := k.held[name]
	if !ok {
		return f, fs.ErrNotExist
	}
	return f, nil
}

func readKey(dir *rundir.Dir, name string) (keyFile, error) {
	var f keyFile
	text, err := os.ReadFile(dir.Path(name))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("decode key file: %w", err)
	}
	return f, nil
}

func (k *Keys) writeLocked(name string, f keyFile) error {
	if k.dir == nil {
		k.held[name] = f
		return nil
	}
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode key file: %w", err)
	}
	temp, err := k.dir.WriteTemp(name+".*", text)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	if err := os.Rename(temp, k.dir.Path(name)); err != nil {
		return errors.Join(fmt.Errorf("write key file: %w", err), os.Remove(temp))
	}
	return nil
}

func (k *Keys) removeLocked(name string) error {
	delete(k.held, name)
	if k.dir == nil {
		return nil
	}
	if err := os.Remove(k.dir.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove key file: %w", err)
	}
	return nil
}

// Fresh reports whether the key was made by this Take.
func (k *Key) Fresh() bool { return k.fresh }

// Keep saves the key for ttl from now: an agent that knows it has just started.
func (k *Key) Keep(ttl time.Duration) error {
	k.keys.mu.Lock()
	defer k.keys.mu.Unlock()
	return k.keys.writeLocked(k.name, keyFile{k.Private, time.Now().Add(ttl)})
}

// Forget removes the key's file: no agent will need it again.
func (k *Key) Forget() error {
	k.keys.mu.Lock()
	defer k.keys.mu.Unlock()
	return k.keys.removeLocked(k.name)
}

// Release ends the session's use of the key. Its file stays.
func (k *Key) Release() {
	k.keys.mu.Lock()
	defer k.keys.mu.Unlock()
	delete(k.keys.inUse, k.name)
}

// Sweep removes the files of keys that no agent can know any more, those of daemons with
// other runtime directories too: such a directory may be gone, and nobody else come.
func (k *Keys) Sweep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for name, f := range k.held {
		if !k.inUse[name] && now.After(f.Expires) {
			delete(k.held, name)
		}
	}
	if k.dir == nil {
		return
	}
	for _, name := range keysIn(k.dir) {
		if f, err := readKey(k.dir, name); !k.inUse[name] && (err != nil || now.After(f.Expires)) {
			_ = os.Remove(k.dir.Path(name)) // tried again by the next sweep
		}
	}
	for _, other := range k.dir.Others() {
		for _, name := range keysIn(other) {
			if f, err := readKey(other, name); err == nil && now.After(f.Expires.Add(rundir.Abandoned)) {
				_ = os.Remove(other.Path(name))
			}
		}
		other.RemoveAbandoned()
	}
}
