package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
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

// filesPrefix begins the names of the directories, in rundir's Memory, that sessions keep the pod's files in.
const filesPrefix = "files-"

// files are copies of the pod's volumes, in memory, that follow the originals.
type files struct {
	dir string         // "" = there are none; set under mu, by the goroutine that begins at a pod
	why string         // why nothing may be copied, or ""
	wg  sync.WaitGroup // who follows

	mu      sync.Mutex
	volumes []*volume // guarded by mu
}

// volume is the copy of one volume.
type volume struct {
	mount  kube.Mount // guarded by files.mu, but for Path
	dir    *os.Root   // set under files.mu; nil if the volume cannot be had
	path   string     // of dir
	note   string     // guarded by files.mu: what is missing in the copy, or ""
	denied bool       // guarded by files.mu: some of it for lack of permission

	mu      sync.Mutex
	version string // guarded by mu: of the content
	turn    int    // guarded by mu: counts the versions
	// shared lets programs in containers read the copy, who may be other users there.
	// Who is not in one does not get as far: the directory above is closed.
	shared bool
}

// FileStatus says which files of the pod a session has.
type FileStatus struct {
	Path   string `json:"path"`
	Volume string `json:"volume"`
	Why    string `json:"why,omitempty"`    // why not, or what of it is missing
	Denied bool   `json:"denied,omitempty"` // the agent lacks permission, which the pod's spec could give
}

// borrowFiles copies the volumes of the container at this pod, and goes on to do so.
// Copies that there are from another pod follow this one.
func (s *Session) borrowFiles(ctx context.Context) error {
	if s.files.dir == "" { // not on the way to another pod
		if err := s.checkPodMounts(); err != nil {
			return err
		}
	}
	if len(s.target.Mounts) > 0 && s.files.dir == "" {
		s.step(s.log)("copying the pod's files")
		if err := s.makeFilesDir(); err != nil {
			return err
		}
	}
	for _, v := range s.files.match(s.target, s.req.Docker != nil, s.req.PodMounts) {
		if err := s.copyVolume(ctx, v); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s.files.refuse(v, err.Error())
		}
	}
	return nil
}

// checkPodMounts refuses to be asked for what the pod has not.
func (s *Session) checkPodMounts() error {
	for _, path := range s.req.PodMounts {
		if slices.ContainsFunc(s.target.Mounts, func(m kube.Mount) bool { return m.Path == path }) {
			continue
		}
		var has []string
		for _, m := range s.target.Mounts {
			has = append(has, m.Path)
		}
		return &fault.Error{Code: fault.Usage, Op: "take the pod's files at", Object: path, Reason: "its container mounts no volume there",
			Hint: "it has files at: " + strings.Join(has, " ")}
	}
	return nil
}

// makeFilesDir makes the place for copies, and lets them follow from then on.
func (s *Session) makeFilesDir() error {
	f := &s.ground.files
	place, err := s.opener.Dir.Memory()
	if err != nil {
		place, f.why = s.opener.Dir, fault.From(err).Reason
	}
	name := filesPrefix + strings.TrimSuffix(strings.TrimPrefix(socketName(), "session-"), ".sock")
	dir := place.Path(name)
	if err := os.MkdirAll(filepath.Join(dir, "view"), 0o700); err != nil {
		return &fault.Error{Code: fault.Laptop, Op: "make a place for the pod's files", Object: dir, Reason: err.Error(), Err: err,
			Hint: "is there room? df -h " + place.String()}
	}
	f.mu.Lock()
	f.dir = dir
	f.mu.Unlock()
	s.onEnd(f.close)
	f.wg.Go(s.ground.followFiles)
	return nil
}

// match takes note of the volumes at a target and returns those that have no copy yet.
// shared is that of new ones; asked are places that view.Refuses takes only then.
func (f *files) match(t *kube.Target, shared bool, asked []string) []*volume {
	f.mu.Lock()
	defer f.mu.Unlock()
	var fresh []*volume
	known := map[string]bool{}
	for _, v := range f.volumes {
		known[v.mount.Path] = true
		i := slices.IndexFunc(t.Mounts, func(m kube.Mount) bool { return m.Path == v.mount.Path })
		switch {
		case i < 0:
			v.mount.Why = "pod " + t.Pod + " has nothing there: what programs see is of the pod before"
		case v.dir != nil:
			v.mount.Volume, v.mount.Why = t.Mounts[i].Volume, t.Mounts[i].Why
		}
	}
	for _, m := range t.Mounts {
		if known[m.Path] {
			continue
		}
		v := &volume{mount: m, shared: shared, path: filepath.Join(f.dir, strconv.Itoa(len(f.volumes)))}
		switch {
		case m.Why != "":
		case f.why != "":
			v.mount.Why = f.why
		default:
			v.mount.Why = view.Refuses(m.Path, asked)
		}
		f.volumes = append(f.volumes, v)
		if v.mount.Why == "" {
			fresh = append(fresh, v)
		}
	}
	return fresh
}

// refuse says why there is no copy of a volume.
func (f *files) refuse(v *volume, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v.mount.Why = why
}

// followed are the volumes that have a copy.
func (f *files) followed() []*volume {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.volumes), func(v *volume) bool { return v.mount.Why != "" || v.dir == nil })
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
	s.files.mu.Lock()
	v.dir = root
	s.files.mu.Unlock()
	if v.shared {
		err = os.Chmod(v.path, 0o755)
	}
	return errors.Join(err, s.syncVolume(ctx, v))
}

// followFiles brings changes until the session ends.
func (g *ground) followFiles() {
	tick := time.NewTicker(filesEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.life.Done():
			return
		case <-tick.C:
		}
		s := g.now.Load()
		for _, v := range g.files.followed() {
			if err := s.syncVolume(s.ctx, v); err != nil && g.life.Err() == nil {
				s.log.Debug("files of the pod", "path", v.mount.Path, "err", err) // what is there stays
			}
		}
	}
}

// syncVolume asks for a volume and replaces the copy if it has changed.
func (s *Session) syncVolume(ctx context.Context, v *volume) error {
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
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
	v.note, v.denied = strings.Join(append(missing, got.Skipped...), ", "), got.Denied
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

// close removes the copies. The session's life must have ended.
func (f *files) close() error {
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, v := range f.volumes {
		if v.dir != nil {
			errs = append(errs, v.dir.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// scratch is a place for programs' views, "" if there are no files.
func (f *files) scratch() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dir == "" {
		return ""
	}
	return filepath.Join(f.dir, "view")
}

// binds are the copies and where programs are to see them.
func (f *files) binds() []view.Bind {
	var out []view.Bind
	for _, v := range f.followed() {
		out = append(out, view.Bind{Source: v.path, Target: v.mount.Path})
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
			st.Why, st.Denied = v.note, v.denied
		}
		out = append(out, st)
	}
	return out
}
