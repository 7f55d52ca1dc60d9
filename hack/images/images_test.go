package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		if err := writeArchive(path, "example.test/program:1", process{Entrypoint: []string{"/program"}}, layer); err != nil {
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
	if len(manifest) != 1 || !cmp.Equal(manifest[0].RepoTags, []string{"example.test/program:1"}) {
		t.Errorf("manifest %+v", manifest)
	}
	for _, name := range append(manifest[0].Layers, manifest[0].Config) {
		if files[name] == "" {
			t.Errorf("the manifest names %s, which is not in the archive", name)
		}
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
	if _, err := (Builder{}).Build(context.Background(), "nginx"); err == nil {
		t.Error("there is a recipe for nginx?")
	}
}
