package node

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is for `go test ./hack/host/node -update`.
var update = flag.Bool("update", false, "rewrite the golden files")

func testConfig() Config {
	return Config{
		Name:             "node-1",
		Root:             "/checkout/.host",
		Dir:              "/checkout/.host",
		Further:          []string{"node-2"},
		Address:          netip.MustParseAddr("10.200.0.2"),
		API:              netip.MustParseAddr("10.200.0.2"),
		Pods:             NodePodCIDR(0),
		Cgroup:           "sublet-0badc0de",
		Snapshotter:      "overlayfs",
		RestrictOOMScore: true,
		SandboxImage:     "registry.k8s.io/pause:3",
	}
}

// furtherConfig is that of a second node.
func furtherConfig() Config {
	c := testConfig()
	c.Name, c.Further = "node-2", nil
	c.Dir = filepath.Join(c.Root, c.Name)
	c.Address = netip.MustParseAddr("10.200.0.3")
	c.Pods = NodePodCIDR(1)
	c.Cgroup += "/node-2"
	return c
}

func TestRender(t *testing.T) {
	for _, config := range []Config{testConfig(), furtherConfig()} {
		t.Run(config.Name, func(t *testing.T) { testRender(t, config) })
	}
}

func testRender(t *testing.T, config Config) {
	files, err := config.Render()
	if err != nil {
		t.Fatal(err)
	}
	for path, got := range files {
		t.Run(path, func(t *testing.T) {
			golden := filepath.Join("testdata", config.Name, filepath.Base(path))
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), renew with -update:\n%s", path, diff)
			}
		})
	}
}

func TestSaveAndLoad(t *testing.T) {
	first, further := testConfig(), furtherConfig()
	first.Root = t.TempDir()
	first.Dir, further.Root = first.Root, first.Root
	further.Dir = filepath.Join(first.Root, further.Name)
	want := []Config{first, further}
	for _, config := range want {
		if err := config.Save(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadAll(first.Root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got,
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPodRanges holds what routes between nodes rely on.
func TestPodRanges(t *testing.T) {
	for i := range MaxNodes {
		if pods := NodePodCIDR(i); pods != pods.Masked() || !PodCIDR().Overlaps(pods) || pods.Bits() <= PodCIDR().Bits() {
			t.Errorf("the range %s of %s is no part of %s", pods, Name(i), PodCIDR())
		}
		for j := range i {
			if NodePodCIDR(i).Overlaps(NodePodCIDR(j)) {
				t.Errorf("%s and %s have pods with the same addresses", Name(i), Name(j))
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	if got := DNSAddress().String(); got != "10.96.0.10" {
		t.Errorf("DNS is at %s", got)
	}
	if got := testConfig().Server(); got != "https://10.200.0.2:6443" {
		t.Errorf("the server is %s", got)
	}
}
