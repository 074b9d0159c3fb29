package session

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// ReadFile returns a file of the pod, as it is now: one of a volume that the agent
// has too. It need not be one that programs see.
func (s *Session) ReadFile(ctx context.Context, name string) ([]byte, error) {
	s = s.now.Load()
	fail := func(reason, hint string) error {
		return &fault.Error{Code: fault.Target, Op: "read", Object: name + " of pod " + s.target.Namespace + "/" + s.target.Pod, Reason: reason, Hint: hint}
	}
	inContainer := fmt.Sprintf("kubectl -n %s exec %s -c %s -- cat %s", s.target.Namespace, s.target.Pod, s.target.Container, name)
	if !path.IsAbs(name) {
		return nil, fail("the path is not absolute", "give it as the container sees it: /"+name)
	}
	m, rel, ok := volumeWith(s.target.Mounts, path.Clean(name))
	switch {
	case !ok:
		return nil, fail("it is in none of the volumes that the agent has: "+mountList(s.target.Mounts), inContainer)
	case m.Why != "":
		return nil, fail("the agent does not have the volume at "+m.Path+": "+m.Why, inContainer)
	}
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	got, err := s.control.files(ctx, m.Path, "")
	if err != nil {
		return nil, fail(err.Error(), "borrownet status")
	}
	var names []string
	for _, f := range got.Files {
		if f.Name == rel {
			return f.Data, nil
		}
		names = append(names, f.Name)
	}
	for _, skipped := range got.Skipped {
		if strings.HasPrefix(skipped, rel+": ") {
			return nil, fail("the agent cannot read it: "+strings.TrimPrefix(skipped, rel+": "), inContainer)
		}
	}
	return nil, fail("there is no such file", "in "+m.Path+" there are: "+strings.Join(names, " "))
}

// volumeWith returns the volume that the file name is in, and its name there.
func volumeWith(mounts []kube.Mount, name string) (found kube.Mount, rel string, ok bool) {
	for _, m := range mounts {
		if r, in := strings.CutPrefix(name, m.Path+"/"); in && len(m.Path) > len(found.Path) {
			found, rel, ok = m, r, true
		}
	}
	return found, rel, ok
}

// mountList names the volumes that the agent has.
func mountList(mounts []kube.Mount) string {
	var paths []string
	for _, m := range mounts {
		if m.Why == "" {
			paths = append(paths, m.Path)
		}
	}
	if len(paths) == 0 {
		return "there are none"
	}
	return strings.Join(paths, " ")
}
