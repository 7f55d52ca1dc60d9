//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/images"
)

// load imports images into a running host.
func load(ctx context.Context, h host, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("load wants images: names of %v, or %s for those of Kubernetes' own tests, or archives", images.Names(), images.Conformance)
	}
	p := newProgress(out)
	for _, arg := range args {
		names := images.Members(arg)
		if len(names) == 0 {
			began := time.Now()
			if err := h.importArchive(ctx, arg); err != nil {
				return err
			}
			p.done(began, "imported %s", filepath.Base(arg))
			continue
		}
		archives, err := h.buildImages(ctx, p, names...)
		if err != nil {
			return err
		}
		if err := h.importImages(ctx, p, archives...); err != nil {
			return err
		}
	}
	return nil
}

// makeImages makes archives without importing them, and prints their paths.
func makeImages(ctx context.Context, h host, names []string, out io.Writer) error {
	var wanted []string
	for _, name := range names {
		members := images.Members(name)
		if len(members) == 0 {
			members = []string{name}
		}
		wanted = append(wanted, members...)
	}
	if len(wanted) == 0 {
		wanted = images.Names()
	}
	archives, err := h.buildImages(ctx, newProgress(out), wanted...)
	if err != nil {
		return err
	}
	for _, archive := range archives {
		fmt.Fprintln(out, archive.Path)
	}
	return nil
}

func (h host) buildImages(ctx context.Context, p *progress, names ...string) ([]images.Archive, error) {
	var archives []images.Archive
	for _, name := range names {
		archive, err := h.images(p).Build(ctx, name)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// importImages imports those archives that the host does not have.
func (h host) importImages(ctx context.Context, p *progress, archives ...images.Archive) error {
	imported, err := h.imported()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if imported[archive.Reference] == archive.Key {
			continue
		}
		began := time.Now()
		if err := h.importArchive(ctx, archive.Path); err != nil {
			return err
		}
		imported[archive.Reference] = archive.Key
		if err := h.noteImported(imported); err != nil {
			return err
		}
		p.done(began, "imported %s", archive.Reference)
	}
	return nil
}

// importArchive gives an archive to containerd.
func (h host) importArchive(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	argv, err := h.enter([]string{filepath.Join(h.tools(), "ctr"), "--namespace", "k8s.io", "images", "import", "-"})
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer file.Close()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Stdin = file
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("import %s: %w\n%s", path, err, out)
	}
	return nil
}

// enter returns a command line that runs argv in the sandbox.
func (h host) enter(argv []string) ([]string, error) {
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, errors.New("the local host is not up: run make up")
	}
	return append([]string{"nsenter", "--target", strconv.Itoa(pid), "--mount", "--root", "--net", "--pid", "--uts", "--ipc", "--"}, argv...), nil
}

// imported tells the key of each image that the host has.
func (h host) imported() (map[string]string, error) {
	imported := map[string]string{}
	content, err := os.ReadFile(h.importedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return imported, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which images the host has: %w", err)
	}
	if err := json.Unmarshal(content, &imported); err != nil {
		return nil, fmt.Errorf("read which images the host has, in %s: %w", h.importedFile(), err)
	}
	return imported, nil
}

func (h host) noteImported(imported map[string]string) error {
	content, err := json.MarshalIndent(imported, "", "  ")
	if err != nil {
		return fmt.Errorf("note which images the host has: %w", err)
	}
	if err := os.WriteFile(h.importedFile(), content, 0o644); err != nil {
		return fmt.Errorf("note which images the host has: %w", err)
	}
	return nil
}

func (h host) importedFile() string { return filepath.Join(h.dir, "images.json") }
