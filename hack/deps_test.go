package hack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sublet-dev/sublet/"

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// list returns all packages of the module by their path inside it.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages := map[string]pkg{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("decode the output of go list: %v", err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	return packages
}

// under says whether an import path is one of the given ones or below it.
func under(path string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
	})
}

// TestImports holds the directions of imports, transitive ones too.
func TestImports(t *testing.T) {
	clients := []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}
	own := func(paths ...string) []string {
		for i := range paths {
			paths[i] = module + paths[i]
		}
		return paths
	}
	rules := map[string]struct {
		packages []string // and all below
		never    []string // and all below, in what they link
		reason   string
	}{
		"the API is plain": {
			packages: []string{"api"},
			never:    append(own("pkg", "syncer", "cmd"), clients...),
			reason:   "everything may import the API, so that it must import nothing",
		},
		"translation is pure": {
			packages: []string{"syncer/translate", "syncer/kinds"},
			never:    append(own("syncer/engine", "pkg"), clients...),
			reason:   "a translation that can call a client is none that a golden file can test",
		},
		"the engine knows no kind": {
			packages: []string{"syncer/engine"},
			never:    own("syncer/kinds", "pkg/manager", "pkg/cli", "pkg/controlplane"),
			reason:   "a kind is added in one file",
		},
		"the syncer does not know the manager": {
			packages: []string{"syncer"},
			never:    own("pkg/manager", "pkg/cli", "pkg/controlplane", "pkg/isolation", "pkg/virtualcluster"),
			reason:   "they meet in the API only",
		},
		"the manager does not know the syncer": {
			packages: []string{"pkg/manager"},
			never:    own("syncer", "pkg/cli", "pkg/controlplane"),
			reason:   "they meet in the API only",
		},
		"the control plane does not know what it serves": {
			packages: []string{"pkg/controlplane"},
			never:    own("syncer", "pkg/manager", "pkg/cli"),
			reason:   "the daemon joins them",
		},
		"what becomes of a tenant is pure": {
			packages: []string{"pkg/tenancy", "pkg/isolation", "pkg/virtualcluster", "pkg/migrate", "pkg/template"},
			never:    append(own("syncer", "pkg/manager", "pkg/cli", "pkg/controlplane"), clients...),
			reason:   "a fence that can call a client is none that a golden file can test",
		},
		"the command line is small": {
			packages: []string{"cmd/sublet"},
			never:    append(own("pkg/controlplane", "pkg/manager", "syncer/engine"), "k8s.io/kubernetes", "go.etcd.io/etcd/server"),
			reason:   "sublet runs on people's machines",
		},
	}
	packages := list(t)
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			found := false
			for path, p := range packages {
				if !under(path, rule.packages...) {
					continue
				}
				found = true
				for _, dependency := range p.Deps {
					if under(dependency, rule.never...) {
						t.Errorf("%s links %s: %s", path, dependency, rule.reason)
					}
				}
			}
			if !found {
				t.Errorf("no package under %v: the rule guards nothing", rule.packages)
			}
		})
	}
	t.Run("cobra stays in the command line", func(t *testing.T) {
		for path, p := range packages {
			// The local host starts Kubernetes' own commands.
			if !under(path, "pkg/cli", "hack/host") && slices.Contains(p.Imports, "github.com/spf13/cobra") {
				t.Errorf("%s imports cobra: commands live in pkg/cli", path)
			}
		}
	})
	t.Run("names say what a package gives", func(t *testing.T) {
		for path := range packages {
			name := path[strings.LastIndex(path, "/")+1:]
			if slices.Contains([]string{"util", "utils", "common", "helpers", "types", "constants", "misc"}, name) {
				t.Errorf("package %s: name it for what it gives", path)
			}
		}
	})
}

// TestPackageComments wants one comment for each package, since that is what a
// newcomer reads first.
func TestPackageComments(t *testing.T) {
	for path, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue // nothing but tests
		}
		if p.Doc == "" {
			t.Errorf("package %s has no package comment", path)
		}
	}
}
