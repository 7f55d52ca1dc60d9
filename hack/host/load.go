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
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sublet-dev/sublet/hack/host/node"
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
			if err := h.importFile(ctx, arg); err != nil {
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

// importImages imports those archives that a node does not have.
func (h host) importImages(ctx context.Context, p *progress, archives ...images.Archive) error {
	nodes, err := node.LoadAll(h.dir)
	if err != nil {
		return err
	}
	for _, archive := range archives {
		began := time.Now()
		var imported atomic.Bool
		group, ctx := errgroup.WithContext(ctx)
		for _, config := range nodes {
			group.Go(func() error {
				known, err := imagesOf(config)
				if err != nil || known[archive.Reference] == archive.Key {
					return err
				}
				if err := h.importArchive(ctx, config, archive.Path); err != nil {
					return err
				}
				imported.Store(true)
				known[archive.Reference] = archive.Key
				return noteImages(config, known)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if imported.Load() {
			p.done(began, "imported %s", archive.Reference)
		}
	}
	return nil
}

// importFile imports an archive that is not one of ours, on all nodes.
func (h host) importFile(ctx context.Context, path string) error {
	nodes, err := h.running()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, config := range nodes {
		group.Go(func() error { return h.importArchive(ctx, config, path) })
	}
	return group.Wait()
}

// importArchive gives an archive to the containerd of a node.
func (h host) importArchive(ctx context.Context, config node.Config, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	argv, err := h.enter(config, []string{filepath.Join(h.tools(), "ctr"), "--namespace", "k8s.io", "images", "import", "-"})
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
		return fmt.Errorf("import %s on %s: %w\n%s", path, config.Name, err, out)
	}
	return nil
}

// imagesOf tells the key of each image that a node has.
func imagesOf(config node.Config) (map[string]string, error) {
	imported := map[string]string{}
	content, err := os.ReadFile(imagesFile(config))
	if errors.Is(err, fs.ErrNotExist) {
		return imported, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which images %s has: %w", config.Name, err)
	}
	if err := json.Unmarshal(content, &imported); err != nil {
		return nil, fmt.Errorf("read which images %s has, in %s: %w", config.Name, imagesFile(config), err)
	}
	return imported, nil
}

func noteImages(config node.Config, imported map[string]string) error {
	content, err := json.MarshalIndent(imported, "", "  ")
	if err != nil {
		return fmt.Errorf("note which images %s has: %w", config.Name, err)
	}
	if err := os.WriteFile(imagesFile(config), content, 0o644); err != nil {
		return fmt.Errorf("note which images %s has: %w", config.Name, err)
	}
	return nil
}

func imagesFile(config node.Config) string { return filepath.Join(config.Dir, "images.json") }
