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
		Dir:              "/checkout/.host",
		Address:          netip.MustParseAddr("10.200.0.2"),
		Cgroup:           "sublet-0badc0de",
		Snapshotter:      "overlayfs",
		RestrictOOMScore: true,
		SandboxImage:     "registry.k8s.io/pause:3",
	}
}

func TestRender(t *testing.T) {
	files, err := testConfig().Render()
	if err != nil {
		t.Fatal(err)
	}
	for path, got := range files {
		t.Run(path, func(t *testing.T) {
			golden := filepath.Join("testdata", filepath.Base(path))
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
	want := testConfig()
	want.Dir = t.TempDir()
	if err := want.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := Load(want.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
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
