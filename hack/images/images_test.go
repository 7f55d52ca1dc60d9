package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/kubernetes/test/utils/image"
)

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	binary, layer := filepath.Join(dir, "binary"), filepath.Join(dir, "layer.tar")
	if err := os.WriteFile(binary, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeLayer(layer,
		entry{name: "program", source: binary, mode: 0o755},
		entry{name: "alias", link: "program"},
		entry{name: "uploads/", mode: 0o755},
	); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"program": "program", "alias": "", "uploads/": ""}, read(t, layer)); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	first, second := filepath.Join(dir, "first.tar"), filepath.Join(dir, "second.tar")
	for _, path := range []string{first, second} {
		run := process{Entrypoint: []string{"/program"}}
		if err := writeArchive(path,
			content{reference: "example.test/program:1", process: run, layers: []string{layer}},
			content{reference: "example.test/program:2", process: run, layers: []string{layer}},
		); err != nil {
			t.Fatal(err)
		}
	}
	files := read(t, first)
	if diff := cmp.Diff(files, read(t, second)); diff != "" {
		t.Errorf("the same input gave another archive:\n%s", diff)
	}
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &manifest); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, saved := range manifest {
		tags = append(tags, saved.RepoTags...)
		for _, name := range append(saved.Layers, saved.Config) {
			if files[name] == "" {
				t.Errorf("the manifest names %s, which is not in the archive", name)
			}
		}
	}
	if diff := cmp.Diff([]string{"example.test/program:1", "example.test/program:2"}, tags); diff != "" {
		t.Fatalf("images (-want +got):\n%s", diff)
	}
	if !cmp.Equal(manifest[0].Layers, manifest[1].Layers) {
		t.Error("the layer that both share is in the archive twice")
	}
	if manifest[0].Config == manifest[1].Config {
		t.Error("both images have the same identity, so that a runtime shows the one under the name of the other")
	}
}

// read returns the files of an archive with their content.
func read(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := map[string]string{}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[header.Name]; twice {
			t.Errorf("%s is in %s twice", header.Name, path)
		}
		files[header.Name] = string(content)
	}
}

func TestFresh(t *testing.T) {
	archive := Archive{Path: filepath.Join(t.TempDir(), "image.tar"), Key: "2"}
	if fresh(archive) {
		t.Error("fresh without an archive")
	}
	if err := os.WriteFile(archive.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if fresh(archive) {
		t.Error("fresh without a key: an interrupted build")
	}
	for key, want := range map[string]bool{"1": false, "2": true} {
		if err := os.WriteFile(archive.keyPath(), []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if fresh(archive) != want {
			t.Errorf("with the key %s fresh is %v", key, !want)
		}
	}
}

func TestKeysFollowTheSources(t *testing.T) {
	b := Builder{Checkout: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(b.Checkout, "hack/images/pause"), 0o755); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, source := range []string{"package main", "package main // changed"} {
		if err := os.WriteFile(filepath.Join(b.Checkout, "hack/images/pause/main.go"), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := b.sourceKey("hack/images/pause")
		if err != nil {
			t.Fatal(err)
		}
		seen[key] = true
	}
	if len(seen) != 2 {
		t.Error("a changed source has the same key, so that its image would stay old")
	}
}

func TestUnknownImage(t *testing.T) {
	if _, err := (Builder{}).Build(context.Background(), "postgres"); err == nil {
		t.Error("there is a recipe for postgres?")
	}
	if got := Members("postgres"); got != nil {
		t.Errorf("postgres consists of %v?", got)
	}
}

// usedByConformance returns the images that the files with conformance specs name.
func usedByConformance(t *testing.T) map[string]image.ImageID {
	t.Helper()
	known := map[string]image.ImageID{
		"APIServer":       image.APIServer,
		"Agnhost":         image.Agnhost,
		"AgnhostPrev":     image.AgnhostPrev,
		"BusyBox":         image.BusyBox,
		"Etcd":            image.Etcd,
		"GlibcDnsTesting": image.GlibcDnsTesting,
		"Kitten":          image.Kitten,
		"Nautilus":        image.Nautilus,
		"Nginx":           image.Nginx,
		"NginxNew":        image.NginxNew,
		"NonRoot":         image.NonRoot,
		"Nonewprivs":      image.Nonewprivs,
		"Pause":           image.Pause,
		// Not an image: that there is none is what is tested.
		"InvalidRegistryImage": image.None,
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("find Kubernetes' sources: %v", err)
	}
	root := strings.TrimSpace(string(out))
	specs, err := os.ReadFile(filepath.Join(root, "test/conformance/testdata/conformance.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// Beside the files of the specs those that they take images from.
	files := []string{"test/e2e/network/dns_common.go", "test/e2e/apps/statefulset.go", "test/e2e/framework/statefulset/fixtures.go"}
	for _, match := range regexp.MustCompile(`(?m)^  file: (\S+)$`).FindAllStringSubmatch(string(specs), -1) {
		files = append(files, match[1])
	}
	used := map[string]image.ImageID{}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`imageutils\.GetE2EImage\(imageutils\.(\w+)\)`).FindAllStringSubmatch(string(content), -1) {
			id, ok := known[match[1]]
			if !ok {
				t.Errorf("%s uses the image %s, of which nothing is known here", file, match[1])
			}
			used[match[1]] = id
		}
	}
	if len(used) < 10 {
		t.Errorf("found only %d images in the specs", len(used))
	}
	return used
}

// TestImagesOfConformance holds the set to what the conformance specs ask for.
func TestImagesOfConformance(t *testing.T) {
	b := Builder{Checkout: "../.."}
	got := map[string]bool{}
	for _, r := range append(b.tests(), b.pause()) {
		for _, reference := range r.references {
			got[reference] = true
		}
		if _, err := r.key(); err != nil {
			t.Errorf("key of %s: %v", r.name, err)
		}
	}
	for name, id := range usedByConformance(t) {
		if id != image.None && !got[image.GetE2EImage(id)] {
			t.Errorf("no recipe makes %s (%s), which a conformance spec uses", name, image.GetE2EImage(id))
		}
	}
}
