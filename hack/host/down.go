//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sublet-dev/sublet/hack/host/sandbox"
)

// down ends the host and removes everything of it, whatever state it is in. It
// does not end it politely, since all that could be saved is removed.
func down(ctx context.Context, h host, _ []string, out io.Writer) error {
	p := newProgress(out)
	release, err := h.lock(ctx, p)
	if err != nil {
		return err
	}
	return errors.Join(h.down(p), release())
}

func (h host) down(p *progress) error {
	left, err := sandbox.Leftovers(h.id, h.dir)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		p.end("The local host was not up")
		return nil
	}
	began := time.Now()
	if err := sandbox.Stop(h.dir, 0); err != nil {
		return err
	}
	// The interface and the cgroups last, as they wait for the last process.
	if err := sandbox.Clean(h.id); err != nil {
		return err
	}
	p.done(began, "ended all processes")
	began = time.Now()
	if err := sandbox.RemoveDir(h.dir); err != nil {
		return err
	}
	p.done(began, "removed %s", h.dir)
	if left, err = sandbox.Leftovers(h.id, h.dir); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("this is still there and should not be: %s", strings.Join(left, ", "))
	}
	p.end("The local host is down, nothing of it is left but the caches in .cache")
	return nil
}
