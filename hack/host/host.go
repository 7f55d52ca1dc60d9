//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/images"
	"github.com/sublet-dev/sublet/pkg/version"
)

// host is one local host: a checkout and a state directory.
type host struct {
	checkout string
	dir      string
	id       string
	// nodes is how many it is to have; 0 means as many as it has, or the default.
	nodes int
	// node is the one to work on; empty means the first.
	node string
}

// findHost finds the checkout that the working directory is in.
func findHost(name, dir string) (host, error) {
	checkout, err := findCheckout()
	if err != nil {
		return host{}, err
	}
	switch {
	case name != "" && dir != "":
		return host{}, errors.New("give --name or --dir, not both")
	case strings.ContainsAny(name, "/ "):
		return host{}, fmt.Errorf("--name is %q; it must have no slash or space", name)
	case name != "":
		dir = filepath.Join(checkout, ".host-"+name)
	case dir == "":
		dir = filepath.Join(checkout, ".host")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return host{}, fmt.Errorf("find the state directory: %w", err)
	}
	return host{checkout: checkout, dir: dir, id: sandbox.ID(dir)}, nil
}

func findCheckout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	if start, err = filepath.EvalSymlinks(start); err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module github.com/sublet-dev/sublet\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the checkout: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in a checkout of Sublet: change to one", start)
		}
	}
}

func needRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return errors.New(`the local host needs root: it makes namespaces, mounts and containers. Run it as root, or use any
other Kubernetes 1.30 or newer that you administer:
  export KUBECONFIG=<its kubeconfig>
  make install`)
}

func (h host) tools() string { return filepath.Join(h.checkout, ".cache/bin") }

func (h host) images(p *progress) images.Builder {
	return images.Builder{Checkout: h.checkout, Version: version.Get().Version, Say: p.say}
}

// lock keeps two commands from changing the same host at once. It is among the
// caches, as the state directory comes and goes.
func (h host) lock(ctx context.Context, p *progress) (release func() error, err error) {
	path := filepath.Join(h.checkout, ".cache", "host-"+h.id+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock the local host: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the local host: %w", err)
	}
	for told := false; ; told = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the local host: %w", err), file.Close())
		}
		if !told {
			p.say("waiting for another command that works on this host")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), file.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
