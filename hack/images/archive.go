package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// process is what an image runs by default.
type process struct {
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	User         string              `json:"User,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
}

// content is one image of an archive.
type content struct {
	reference string
	process
	// layers are uncompressed tar files.
	layers []string
}

// writeArchive writes images in the format of `docker save`, which everything
// imports. Layers that they share are in it once. The same input gives the same
// bytes.
func writeArchive(path string, images ...content) error {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	defer out.Close()
	a := archiveWriter{archive: tar.NewWriter(out), digests: map[string]string{}, written: map[string]bool{}}
	var manifest []savedImage
	for _, image := range images {
		saved, err := a.image(image)
		if err != nil {
			return fmt.Errorf("write the image %s: %w", image.reference, err)
		}
		manifest = append(manifest, saved)
	}
	if err := a.json("manifest.json", manifest); err != nil {
		return err
	}
	if err := a.archive.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

// savedImage is an entry of the archive's manifest.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

type archiveWriter struct {
	archive *tar.Writer
	// digests are those of layers, by their path.
	digests map[string]string
	written map[string]bool
}

// image writes the layers and the configuration of an image.
func (a archiveWriter) image(image content) (savedImage, error) {
	saved := savedImage{RepoTags: []string{image.reference}}
	var diffs []string
	for _, layer := range image.layers {
		digest, known := a.digests[layer]
		if !known {
			var err error
			if digest, err = fileDigest(layer); err != nil {
				return saved, err
			}
			a.digests[layer] = digest
		}
		name := digest + ".tar"
		if !a.written[name] {
			if err := addFile(a.archive, name, layer, 0o644); err != nil {
				return saved, err
			}
			a.written[name] = true
		}
		diffs, saved.Layers = append(diffs, "sha256:"+digest), append(saved.Layers, name)
	}
	run := image.process
	// Of two names for the same bytes a runtime tells only one, and tests look for
	// the one that they have set.
	run.Labels = map[string]string{"org.opencontainers.image.ref.name": image.reference}
	config := map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       run,
		"created":      epoch(),
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		return saved, err
	}
	digest := sha256.Sum256(encoded)
	saved.Config = hex.EncodeToString(digest[:]) + ".json"
	return saved, a.json(saved.Config, config)
}

func (a archiveWriter) json(name string, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s of the archive: %w", name, err)
	}
	return add(a.archive, name, int64(len(encoded)), 0o644, bytes.NewReader(encoded))
}

// entry is one file of a layer: a copy of source, a directory if its name ends
// in a slash, or a symbolic link.
type entry struct {
	name, source, link string
	mode               int64
}

// writeLayer writes a layer of some files that belong to root.
func writeLayer(path string, entries ...entry) error {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write a layer: %w", err)
	}
	defer out.Close()
	layer := tar.NewWriter(out)
	for _, e := range entries {
		switch {
		case e.link != "":
			err = layer.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: e.name, Linkname: e.link, Mode: 0o777, ModTime: epoch()})
		case strings.HasSuffix(e.name, "/"):
			err = layer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: e.name, Mode: e.mode, ModTime: epoch()})
		default:
			err = addFile(layer, e.name, e.source, e.mode)
		}
		if err != nil {
			return fmt.Errorf("write %s to a layer: %w", e.name, err)
		}
	}
	if err := layer.Close(); err != nil {
		return fmt.Errorf("write a layer: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write a layer: %w", err)
	}
	return nil
}

func addFile(archive *tar.Writer, name, source string, mode int64) error {
	file, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	return add(archive, name, info.Size(), mode, file)
}

func add(archive *tar.Writer, name string, size, mode int64, content io.Reader) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: epoch()}); err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	if _, err := io.Copy(archive, content); err != nil {
		return fmt.Errorf("add %s to the archive: %w", name, err)
	}
	return nil
}

func epoch() time.Time { return time.Unix(0, 0).UTC() }

func fileDigest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	defer file.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return "", fmt.Errorf("digest of %s: %w", path, err)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}
