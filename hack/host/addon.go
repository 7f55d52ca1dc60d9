//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sublet-dev/sublet/hack/host/addons"
	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/images"
)

// addAddon puts an addon on a running host that not every host has.
func addAddon(ctx context.Context, h host, args []string, out io.Writer) error {
	if len(args) != 1 || args[0] != addons.Metrics {
		return fmt.Errorf("addon wants the name of one; there is %s", addons.Metrics)
	}
	nodes, err := h.running()
	if err != nil {
		return err
	}
	p := newProgress(out)
	release, err := h.lock(ctx, p)
	if err != nil {
		return err
	}
	return errors.Join(h.addMetrics(ctx, p, nodes[0]), release())
}

func (h host) addMetrics(ctx context.Context, p *progress, first node.Config) error {
	archives, err := h.buildImages(ctx, p, images.MetricsServer)
	if err != nil {
		return err
	}
	if err := h.importImages(ctx, p, archives...); err != nil {
		return err
	}
	began := time.Now()
	if err := h.apply(ctx, p, first, addons.Metrics); err != nil {
		return err
	}
	client, err := first.RESTConfig()
	if err != nil {
		return err
	}
	if err := await(ctx, func(ctx context.Context) error { return addons.Ready(ctx, client, addons.Metrics) }); err != nil {
		return err
	}
	if err := await(ctx, func(ctx context.Context) error { return addons.Measured(ctx, client) }); err != nil {
		return err
	}
	p.done(began, "metrics-server has measured all nodes")
	return nil
}
