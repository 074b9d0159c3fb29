package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/hook/view"
)

const (
	// filesEvery is the time between two looks at the pod's files: the kubelet
	// itself takes up to a minute to bring a change there.
	filesEvery = 5 * time.Second
	// filesTimeout bounds one look.
	filesTimeout = 20 * time.Second
)

// filesPrefix begins the names of the directories, in the runtime directory,
// that sessions keep the pod's files in.
const filesPrefix = "files-"

// files are copies of the pod's volumes, in memory, that follow the originals.
type files struct {
	dir     string // "" = there are none
	volumes []*volume
	wg      sync.WaitGroup // who follows

	mu sync.Mutex // guards the volumes' notes
}

// volume is the copy of one volume.
type volume struct {
	mount   kube.Mount
	dir     *os.Root // nil if the volume cannot be had
	path    string   // of dir
	version string   // of the content; used by one goroutine
	turn    int      // counts the versions
	note    string   // guarded by files.mu: what is missing in the copy, or ""
	// shared lets programs in containers read the copy, who may be other users there.
	// Who is not in one does not get as far: the directory above is closed.
	shared bool
}

// FileStatus says which files of the pod a session has.
type FileStatus struct {
	Path   string `json:"path"`
	Volume string `json:"volume"`
	Why    string `json:"why,omitempty"` // why not, or what of it is missing
}

// borrowFiles copies the container's volumes, and goes on to do so.
func (s *Session) borrowFiles(ctx context.Context, o *Opener) error {
	if len(s.target.Mounts) == 0 {
		return nil
	}
	s.obs.Step("copying the pod's files")
	name := filesPrefix + strings.TrimSuffix(strings.TrimPrefix(socketName(), "session-"), ".sock")
	dir := o.Dir.Path(name)
	if err := os.MkdirAll(filepath.Join(dir, "view"), 0o700); err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "make a place for the pod's files", Object: dir, Reason: err.Error(), Err: err,
			Hint: "is there room? df -h " + o.Dir.String()}
	}
	s.files.dir = dir
	s.onClose(s.files.close)
	why := ""
	if !inMemory(dir) {
		why = "nothing of it may be on a disk, and " + o.Dir.String() + " is on one: set XDG_RUNTIME_DIR to a directory in memory"
	}
	for i, m := range s.target.Mounts {
		v := &volume{mount: m, path: filepath.Join(dir, strconv.Itoa(i)), shared: s.req.Docker != nil}
		switch {
		case m.Why != "":
		case why != "":
			v.mount.Why = why
		default:
			v.mount.Why = view.Refuses(m.Path)
		}
		s.files.volumes = append(s.files.volumes, v)
		if v.mount.Why != "" {
			continue
		}
		if err := s.copyVolume(ctx, v); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			v.mount.Why = err.Error()
		}
	}
	s.files.wg.Go(s.followFiles)
	return nil
}

// copyVolume makes the first copy.
func (s *Session) copyVolume(ctx context.Context, v *volume) error {
	if err := os.Mkdir(v.path, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(v.path)
	if err != nil {
		return err
	}
	v.dir = root
	if v.shared {
		err = os.Chmod(v.path, 0o755)
	}
	return errors.Join(err, s.syncVolume(ctx, v))
}

// followFiles brings changes until the session ends.
func (s *Session) followFiles() {
	tick := time.NewTicker(filesEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		for _, v := range s.files.volumes {
			if v.mount.Why != "" {
				continue
			}
			if err := s.syncVolume(s.ctx, v); err != nil && s.ctx.Err() == nil {
				s.log.Debug("files of the pod", "path", v.mount.Path, "err", err) // what is there stays
			}
		}
	}
}

// syncVolume asks for a volume and replaces the copy if it has changed.
func (s *Session) syncVolume(ctx context.Context, v *volume) error {
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	got, err := s.control.files(ctx, v.mount.Path, v.version)
	if err != nil || got.Version == v.version {
		return err
	}
	missing, err := v.replace(got.Files)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	v.version = got.Version
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	v.note = strings.Join(append(missing, got.Skipped...), ", ")
	return nil
}

// replace makes list the content of the copy, all of it at once: as in the
// kubelet's volumes, what programs open leads through one link that is changed.
// It returns which files were refused.
func (v *volume) replace(list []wire.File) (missing []string, err error) {
	v.turn++
	next, before := fmt.Sprintf("..%d", v.turn), fmt.Sprintf("..%d", v.turn-1)
	if err := v.dir.Mkdir(next, 0o700); err != nil {
		return nil, err
	}
	top := map[string]bool{}
	for _, f := range list {
		if !plainPath(f.Name) {
			missing = append(missing, fmt.Sprintf("%q is no name for a file here", f.Name))
			continue
		}
		name := path.Join(next, f.Name)
		if err := v.dir.MkdirAll(path.Dir(name), 0o700); err != nil {
			return nil, err
		}
		if err := v.dir.WriteFile(name, f.Data, 0o600); err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(f.Name, "/")
		top[first] = true
	}
	if err := v.share(next); err != nil {
		return nil, err
	}
	if err := errors.Join(v.dir.Symlink(next, "..new"), v.dir.Rename("..new", "..data")); err != nil {
		return nil, err
	}
	if err := v.link(top); err != nil {
		return nil, err
	}
	if err := v.dir.RemoveAll(before); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return missing, nil
}

// share lets everybody read what is below dir, if the copy is shared.
func (v *volume) share(dir string) error {
	if !v.shared {
		return nil
	}
	return fs.WalkDir(v.dir.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return v.dir.Chmod(name, 0o755)
		}
		return v.dir.Chmod(name, 0o644)
	})
}

// link makes a link for each of the names and removes those of others.
func (v *volume) link(names map[string]bool) error {
	entries, err := fs.ReadDir(v.dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), ".."):
		case names[e.Name()]:
			delete(names, e.Name())
		default:
			err = errors.Join(err, v.dir.Remove(e.Name()))
		}
	}
	for name := range names {
		err = errors.Join(err, v.dir.Symlink("..data/"+name, name))
	}
	return err
}

// plainPath reports whether the agent may have a file of that name written.
func plainPath(name string) bool {
	if !fs.ValidPath(name) || name == "." || len(name) > 1024 || strings.ContainsFunc(name, unicode.IsControl) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, "..") {
			return false
		}
	}
	return true
}

// close removes the copies. The session's context must have ended.
func (f *files) close() error {
	f.wg.Wait()
	var errs []error
	for _, v := range f.volumes {
		if v.dir != nil {
			errs = append(errs, v.dir.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// binds are the copies and where programs are to see them.
func (f *files) binds() []view.Bind {
	var out []view.Bind
	for _, v := range f.volumes {
		if v.mount.Why == "" {
			out = append(out, view.Bind{Source: v.path, Target: v.mount.Path})
		}
	}
	return out
}

func (f *files) status() []FileStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []FileStatus
	for _, v := range f.volumes {
		st := FileStatus{Path: v.mount.Path, Volume: v.mount.Volume, Why: v.mount.Why}
		if st.Why == "" {
			st.Why = v.note
		}
		out = append(out, st)
	}
	return out
}
