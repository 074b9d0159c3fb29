package cgroup

import "testing"

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Hierarchy
		ok         bool
	}{
		{"v1", "34 27 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory",
			Hierarchy{Mount: "/sys/fs/cgroup/memory", Options: "memory"}, true},
		{"together", "35 27 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
			Hierarchy{Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct"}, true},
		{"named", "36 27 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd",
			Hierarchy{Mount: "/sys/fs/cgroup/systemd", Options: "none,name=systemd"}, true},
		{"hybrid", "37 27 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
			Hierarchy{Mount: "/sys/fs/cgroup/unified", V2: true}, true},
		{"v2", "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
			Hierarchy{Mount: "/sys/fs/cgroup", V2: true}, true},
		{"elsewhere", "37 27 0:33 / /mnt/cg rw - cgroup2 cgroup2 rw", Hierarchy{}, false},
		{"tmpfs", "27 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755", Hierarchy{}, false},
		{"short", "27", Hierarchy{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseMount(tt.line)
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("got %+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}
