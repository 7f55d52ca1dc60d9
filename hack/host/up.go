//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sublet-dev/sublet/hack/host/addons"
	"github.com/sublet-dev/sublet/hack/host/localpath"
	"github.com/sublet-dev/sublet/hack/host/node"
	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
	"github.com/sublet-dev/sublet/hack/host/tools"
	"github.com/sublet-dev/sublet/hack/images"
)

const (
	poll = 50 * time.Millisecond
	// patience is for all components together, on a machine that compiles at the
	// same time.
	patience = 3 * time.Minute
	// hopeless is how often a component may fail before up tells of it.
	hopeless = 3
)

// up goes through all steps each time; those that are done already take no time.
func up(ctx context.Context, h host, _ []string, out io.Writer) error {
	p := newProgress(out)
	release, err := h.lock(ctx, p)
	if err != nil {
		return err
	}
	err = errors.Join(h.up(ctx, p), release())
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: `host up` goes on from here, `host down` removes what is there: %w", err)
	}
	return err
}

func (h host) up(ctx context.Context, p *progress) error {
	if err := h.installTools(ctx, p); err != nil {
		return err
	}
	base, err := h.buildImages(ctx, p, images.Pause, images.CoreDNS)
	if err != nil {
		return err
	}
	config, err := h.startSandbox(p)
	if err != nil {
		return err
	}
	if err := h.awaitComponents(ctx, p, config, node.ContainerRuntime); err != nil {
		return err
	}
	if err := h.importImages(ctx, p, base...); err != nil {
		return err
	}
	// What the host itself runs without can come while it starts.
	optional := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { optional <- h.loadOptional(ctx, p) }()
	if err := h.awaitCluster(ctx, p, config); err != nil {
		cancel()
		<-optional
		return err
	}
	if err := <-optional; err != nil {
		return err
	}
	p.end("The local host is up: export KUBECONFIG=%s", config.Kubeconfig())
	return nil
}

// awaitCluster waits until the cluster can be used.
func (h host) awaitCluster(ctx context.Context, p *progress, config node.Config) error {
	if err := h.awaitComponents(ctx, p, config, node.ControlPlane); err != nil {
		return err
	}
	if err := h.applyAddons(ctx, p, config); err != nil {
		return err
	}
	if err := h.awaitComponents(ctx, p, config, node.Names()...); err != nil {
		return err
	}
	return h.awaitReady(ctx, p, config)
}

// loadOptional imports Sublet's own image and the one that tests use.
func (h host) loadOptional(ctx context.Context, p *progress) error {
	names := []string{images.Subletd, images.Agnhost}
	if _, err := os.Stat(filepath.Join(h.checkout, "bin/subletd")); errors.Is(err, fs.ErrNotExist) {
		p.say("no bin/subletd, so no image of it: run make build, then host load %s", images.Subletd)
		names = names[1:]
	}
	for _, name := range names {
		archives, err := h.buildImages(ctx, p, name)
		if err != nil {
			return err
		}
		if err := h.importImages(ctx, p, archives...); err != nil {
			return err
		}
	}
	return nil
}

func (h host) installTools(ctx context.Context, p *progress) error {
	began := time.Now()
	installed, err := tools.Debian(ctx, p.say)
	if err != nil {
		return err
	}
	if len(installed) > 0 {
		p.done(began, "installed %s", strings.Join(installed, " "))
	}
	began = time.Now()
	if err := os.MkdirAll(h.tools(), 0o755); err != nil {
		return fmt.Errorf("make the directory for tools: %w", err)
	}
	built, err := tools.Containerd(ctx, h.tools(), p.say)
	if err != nil {
		return err
	}
	if built {
		p.done(began, "built containerd")
	}
	return nil
}

// startSandbox starts the sandbox, unless it runs.
func (h host) startSandbox(p *progress) (node.Config, error) {
	began := time.Now()
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return node.Config{}, err
	}
	if pid != 0 {
		config, err := node.Load(h.dir)
		if err == nil && older(pid) {
			p.say("it runs an older build of this program; host down and host up renew it")
		}
		return config, err
	}
	// The last one may have ended without cleaning up.
	if err := sandbox.Clean(h.id); err != nil {
		return node.Config{}, err
	}
	spec, err := h.spec()
	if err != nil {
		return node.Config{}, err
	}
	config, err := h.configure(spec)
	if err != nil {
		return node.Config{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return node.Config{}, fmt.Errorf("find this program: %w", err)
	}
	if err := sandbox.Start(spec, []string{self, "init"}); err != nil {
		return node.Config{}, err
	}
	p.done(began, "sandbox: node %s at %s", node.Name, config.Address)
	return config, nil
}

// older says whether process 1 runs another file than this program.
func older(pid int) bool {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	return err == nil && !os.SameFile(theirs, ours)
}

func (h host) spec() (sandbox.Spec, error) {
	spec := sandbox.Spec{ID: h.id, Dir: h.dir, Checkout: h.checkout, Hostname: node.Name, ServiceCIDR: node.ServiceCIDR()}
	taken, err := sandbox.Taken("sublet-" + h.id)
	if err != nil {
		return spec, err
	}
	spec.Link, err = sandbox.ChooseLink(h.id, taken)
	return spec, err
}

// configure writes what the components read.
func (h host) configure(spec sandbox.Spec) (node.Config, error) {
	builder := h.images(newProgress(io.Discard))
	pause, err := builder.Reference(images.Pause)
	if err != nil {
		return node.Config{}, err
	}
	config := node.Config{
		Dir:          h.dir,
		Address:      spec.Link.Node.Addr(),
		Cgroup:       spec.Cgroup(),
		SandboxImage: pause,
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return config, fmt.Errorf("make the state directory: %w", err)
	}
	if config.Snapshotter, err = node.ChooseSnapshotter(h.dir); err != nil {
		return config, err
	}
	if config.RestrictOOMScore, err = node.MustRestrictOOMScore(); err != nil {
		return config, err
	}
	// What the last supervisor told is not true of the next.
	if err := os.Remove(config.StateFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return config, fmt.Errorf("forget the state of the components: %w", err)
	}
	return config, errors.Join(config.Save(), config.Prepare(time.Now()))
}

// awaitComponents waits until components are ready, and tells about those that
// were not from the start.
func (h host) awaitComponents(ctx context.Context, p *progress, config node.Config, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it took too long"))
	defer cancel()
	var before map[string]int
	var told []string
	for first := true; ; first = false {
		state, err := supervise.ReadState(config.StateFile())
		if pid, pidErr := sandbox.PID(h.dir); pidErr != nil || pid == 0 {
			return errors.Join(fmt.Errorf("the sandbox ended:\n%s", tail(filepath.Join(config.LogDir(), "init.log"))), pidErr)
		}
		if err == nil && before == nil {
			before = failures(state)
		}
		waiting := ""
		for _, name := range names {
			component := state.Component(name)
			switch {
			case component.Phase == supervise.Ready && !first && !slices.Contains(told, name):
				p.took(component.ReadyAfter, "%s", name)
				told = append(told, name)
			case component.Phase == supervise.Ready:
				told = append(told, name)
			case component.Failures >= before[name]+hopeless:
				return withLog(fmt.Errorf("%s %s, %d times", name, component.LastExit, component.Failures), config, name)
			default:
				waiting = name
			}
		}
		if err == nil && waiting == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return withLog(fmt.Errorf("waiting for %s: %w", waiting, context.Cause(ctx)), config, waiting)
		case <-time.After(poll):
		}
	}
}

func failures(state supervise.State) map[string]int {
	count := map[string]int{}
	for _, component := range state.Components {
		count[component.Name] = component.Failures
	}
	return count
}

func (h host) applyAddons(ctx context.Context, p *progress, config node.Config) error {
	began := time.Now()
	client, err := config.RESTConfig()
	if err != nil {
		return err
	}
	image, err := h.images(p).Reference(images.CoreDNS)
	if err != nil {
		return err
	}
	values := addons.Values{
		Image:         image,
		ClusterDomain: node.ClusterDomain,
		DNSAddress:    node.DNSAddress(),
		Provisioner:   localpath.ProvisionerName,
	}
	// The API server may just be starting again.
	err = await(ctx, func(ctx context.Context) error { return addons.Apply(ctx, client, values) })
	if err != nil {
		return withLog(err, config, node.ControlPlane)
	}
	p.done(began, "applied CoreDNS and the StorageClass")
	return nil
}

// awaitReady waits until pods can be run and find each other.
func (h host) awaitReady(ctx context.Context, p *progress, config node.Config) error {
	began := time.Now()
	client, err := config.RESTConfig()
	if err != nil {
		return err
	}
	err = await(ctx, func(ctx context.Context) error { return addons.Ready(ctx, client, node.Name) })
	if err != nil {
		return withLog(err, config, node.Kubelet)
	}
	p.done(began, "node and CoreDNS are ready")
	return nil
}

// await tries until it works, and returns the last error when it never does.
func await(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it took too long"))
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(poll):
		}
	}
}

// withLog adds the end of a component's log to an error.
func withLog(err error, config node.Config, component string) error {
	return fmt.Errorf("%w. The end of the log of %s:\n%s", err, component, tail(filepath.Join(config.LogDir(), component+".log")))
}

// tail returns the last lines of a log.
func tail(path string) string {
	const lines, bytes = 15, 8192
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	content = content[max(0, len(content)-bytes):]
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
