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
}

// writeArchive writes an image of layers, each an uncompressed tar file, in the
// format of `docker save`, which everything imports. The same input gives the
// same bytes.
func writeArchive(path, reference string, run process, layers ...string) error {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	defer out.Close()
	archive := tar.NewWriter(out)
	var diffs, names []string
	for _, layer := range layers {
		digest, err := fileDigest(layer)
		if err != nil {
			return err
		}
		name := digest + ".tar"
		if err := addFile(archive, name, layer, 0o644); err != nil {
			return err
		}
		diffs, names = append(diffs, "sha256:"+digest), append(names, name)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       run,
		"created":      epoch(),
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	digest := sha256.Sum256(config)
	configName := hex.EncodeToString(digest[:]) + ".json"
	manifest, err := json.Marshal([]map[string]any{{
		"Config":   configName,
		"RepoTags": []string{reference},
		"Layers":   names,
	}})
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	for _, entry := range []struct {
		name    string
		content []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		if err := add(archive, entry.name, int64(len(entry.content)), 0o644, bytes.NewReader(entry.content)); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
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
