//go:build linux

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHierarchies(t *testing.T) {
	cases := map[string]struct {
		mountinfo string
		want      []hierarchy
	}{
		"version 1 with an empty version 2 beside it": {
			mountinfo: `25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`,
			want: []hierarchy{
				{path: "/sys/fs/cgroup/cpu"},
				{path: "/sys/fs/cgroup/systemd"},
				{path: "/sys/fs/cgroup/unified", unified: true},
			},
		},
		"version 2": {
			mountinfo: "31 30 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			want:      []hierarchy{{path: "/sys/fs/cgroup", unified: true}},
		},
		"mounted twice, and elsewhere": {
			mountinfo: `31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
32 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
33 30 0:27 / /var/lib/lxc/cgroup rw - cgroup2 cgroup2 rw
34 30 0:27 / /sys/fs/cgroups-of-mine rw - cgroup2 cgroup2 rw
`,
			want: []hierarchy{{path: "/sys/fs/cgroup", unified: true}},
		},
		"none": {mountinfo: "25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\nnonsense\n"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := hierarchies(strings.NewReader(test.mountinfo))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Errorf("hierarchies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemoveTree(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "pods/pod-1/container"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("it is still there")
	}
	if err := removeTree(root); err != nil {
		t.Errorf("once more: %v", err)
	}
}

func TestRemoveTreeTellsWhatIsInTheWay(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	busy := filepath.Join(root, "pods")
	if err := os.MkdirAll(busy, 0o755); err != nil {
		t.Fatal(err)
	}
	// A file keeps a directory as a process keeps a cgroup.
	if err := os.WriteFile(filepath.Join(busy, "process"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(root); err == nil || !strings.Contains(err.Error(), busy) {
		t.Errorf("error %v, which should name %s", err, busy)
	}
}

func TestLineage(t *testing.T) {
	got := lineage("/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/cpuset/sublet-1/node-2/system")
	want := []string{
		"/sys/fs/cgroup/cpuset",
		"/sys/fs/cgroup/cpuset/sublet-1",
		"/sys/fs/cgroup/cpuset/sublet-1/node-2",
		"/sys/fs/cgroup/cpuset/sublet-1/node-2/system",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("from the root down (-want +got):\n%s", diff)
	}
}
