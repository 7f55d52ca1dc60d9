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

	"golang.org/x/sys/unix"

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
	// defaultNodes of a new host.
	defaultNodes = 1
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
	nodes, err := h.startSandbox(ctx, p)
	if err != nil {
		return err
	}
	for _, config := range nodes {
		if err := h.awaitComponents(ctx, p, config, node.ContainerRuntime); err != nil {
			return err
		}
	}
	if err := h.importImages(ctx, p, base...); err != nil {
		return err
	}
	// What the host itself runs without can come while it starts.
	optional := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { optional <- h.loadOptional(ctx, p) }()
	if err := h.awaitCluster(ctx, p, nodes); err != nil {
		cancel()
		<-optional
		return err
	}
	if err := <-optional; err != nil {
		return err
	}
	p.end("The local host is up: export KUBECONFIG=%s", nodes[0].Kubeconfig())
	return nil
}

// awaitCluster waits until the cluster can be used.
func (h host) awaitCluster(ctx context.Context, p *progress, nodes []node.Config) error {
	first := nodes[0]
	if err := h.awaitComponents(ctx, p, first, node.ControlPlane); err != nil {
		return err
	}
	if err := h.applyAddons(ctx, p, first); err != nil {
		return err
	}
	for _, config := range nodes {
		if err := h.awaitComponents(ctx, p, config, node.Names(config)...); err != nil {
			return err
		}
	}
	return h.awaitReady(ctx, p, nodes)
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

// startSandbox starts the sandbox, unless it runs, and returns its nodes.
func (h host) startSandbox(ctx context.Context, p *progress) ([]node.Config, error) {
	began := time.Now()
	pid, err := sandbox.PID(h.dir)
	if err != nil {
		return nil, err
	}
	if pid != 0 {
		return h.resume(ctx, p, pid)
	}
	// The last one may have ended without cleaning up.
	if err := sandbox.Clean(h.id); err != nil {
		return nil, err
	}
	spec, err := h.spec()
	if err != nil {
		return nil, err
	}
	nodes, err := h.configure(spec, 0)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if err := sandbox.Start(spec, []string{self, "init"}); err != nil {
		return nil, err
	}
	var names []string
	for _, config := range nodes {
		names = append(names, fmt.Sprintf("%s at %s", config.Name, config.Address))
	}
	p.done(began, "sandbox: %s", strings.Join(names, ", "))
	return nodes, nil
}

// resume returns the nodes of a sandbox that runs, after it has added those that
// are missing and started kubelets that were stopped.
func (h host) resume(ctx context.Context, p *progress, pid int) ([]node.Config, error) {
	nodes, err := node.LoadAll(h.dir)
	if err != nil {
		return nil, err
	}
	if older(pid) {
		p.say("it runs an older build of this program; host down and host up renew it")
	}
	for _, config := range nodes {
		if err := h.signalKubelet(ctx, config, unix.SIGCONT); err != nil && !errors.Is(err, errNotRunning) {
			return nil, err
		}
	}
	switch {
	case h.nodes == 0 || h.nodes == len(nodes):
		return nodes, nil
	case h.nodes < len(nodes) || older(pid):
		return nil, fmt.Errorf("the local host runs with %d nodes, not %d: host down, then host up --nodes %d", len(nodes), h.nodes, h.nodes)
	}
	return h.addNodes(p, pid, len(nodes))
}

// addNodes adds nodes to a sandbox that runs and has some.
func (h host) addNodes(p *progress, pid, before int) ([]node.Config, error) {
	began := time.Now()
	further, err := sandboxNodes(h.nodes)
	if err != nil {
		return nil, err
	}
	spec, err := sandbox.Extend(h.dir, further[before:]...)
	if err != nil {
		return nil, err
	}
	nodes, err := h.configure(spec, before)
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(pid, addNodes); err != nil {
		return nil, fmt.Errorf("tell the sandbox of further nodes: %w", err)
	}
	p.done(began, "added %s", strings.Join(nodeNames(nodes[before:]), ", "))
	return nodes, nil
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
	spec := sandbox.Spec{ID: h.id, Dir: h.dir, Checkout: h.checkout, ServiceCIDR: node.ServiceCIDR()}
	count := h.nodes
	if count == 0 {
		count = defaultNodes
		// One that ended is to be as it was.
		if last, err := node.LoadAll(h.dir); err == nil {
			count = len(last)
		}
	}
	var err error
	if spec.Nodes, err = sandboxNodes(count); err != nil {
		return spec, err
	}
	taken, err := sandbox.Taken("sublet-" + h.id)
	if err != nil {
		return spec, err
	}
	spec.Link, err = sandbox.ChooseLink(h.id, taken)
	return spec, err
}

func sandboxNodes(count int) ([]sandbox.Node, error) {
	if most := min(node.MaxNodes, sandbox.MaxNodes); count < 1 || count > most {
		return nil, fmt.Errorf("--nodes is %d; a local host has 1 to %d nodes", count, most)
	}
	var nodes []sandbox.Node
	for i := range count {
		nodes = append(nodes, sandbox.Node{Name: node.Name(i), Pods: node.NodePodCIDR(i)})
	}
	return nodes, nil
}

// configure writes what the components of all nodes read, and returns it. Of the
// first nodes, as many as running, it is written already, but for who the others
// are.
func (h host) configure(spec sandbox.Spec, running int) ([]node.Config, error) {
	builder := h.images(newProgress(io.Discard))
	pause, err := builder.Reference(images.Pause)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	snapshotter, err := node.ChooseSnapshotter(h.dir)
	if err != nil {
		return nil, err
	}
	restrict, err := node.MustRestrictOOMScore()
	if err != nil {
		return nil, err
	}
	var nodes []node.Config
	for i, n := range spec.Nodes {
		config := node.Config{
			Name:             n.Name,
			Root:             h.dir,
			Dir:              spec.NodeDir(i),
			Address:          spec.Link.Address(i),
			API:              spec.Link.Address(0),
			Pods:             n.Pods,
			Cgroup:           spec.Cgroup(i),
			Snapshotter:      snapshotter,
			RestrictOOMScore: restrict,
			SandboxImage:     pause,
		}
		if i == 0 {
			for _, further := range spec.Nodes[1:] {
				config.Further = append(config.Further, further.Name)
			}
		}
		nodes = append(nodes, config)
		if i < running {
			if err := config.Save(); err != nil {
				return nil, err
			}
			continue
		}
		// What the last supervisor told is not true of the next.
		if err := os.Remove(config.StateFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("forget the state of the components: %w", err)
		}
		if err := errors.Join(os.MkdirAll(config.LogDir(), 0o755), config.Save(), config.Prepare(time.Now())); err != nil {
			return nil, err
		}
	}
	return nodes, nil
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
				p.took(component.ReadyAfter, "%s", config.Label(name))
				told = append(told, name)
			case component.Phase == supervise.Ready:
				told = append(told, name)
			case component.Failures >= before[name]+hopeless:
				return withLog(fmt.Errorf("%s %s, %d times", config.Label(name), component.LastExit, component.Failures), config, name)
			default:
				waiting = name
			}
		}
		if err == nil && waiting == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return withLog(fmt.Errorf("waiting for %s: %w", config.Label(waiting), context.Cause(ctx)), config, waiting)
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
	if err := h.apply(ctx, p, config, addons.Storage, addons.DNS); err != nil {
		return err
	}
	p.done(began, "applied CoreDNS and the StorageClass")
	return nil
}

func (h host) apply(ctx context.Context, p *progress, config node.Config, names ...string) error {
	client, err := config.RESTConfig()
	if err != nil {
		return err
	}
	values := addons.Values{
		ClusterDomain: node.ClusterDomain,
		DNSAddress:    node.DNSAddress(),
		Provisioner:   localpath.ProvisionerName,
	}
	for name, reference := range map[string]*string{
		images.CoreDNS:       &values.CoreDNSImage,
		images.MetricsServer: &values.MetricsServerImage,
	} {
		if *reference, err = h.images(p).Reference(name); err != nil {
			return err
		}
	}
	// The API server may just be starting again.
	err = await(ctx, func(ctx context.Context) error { return addons.Apply(ctx, client, values, names...) })
	if err != nil {
		return withLog(err, config, node.ControlPlane)
	}
	return nil
}

// awaitReady waits until pods can be run and find each other.
func (h host) awaitReady(ctx context.Context, p *progress, nodes []node.Config) error {
	began := time.Now()
	client, err := nodes[0].RESTConfig()
	if err != nil {
		return err
	}
	for _, config := range nodes {
		err = await(ctx, func(ctx context.Context) error { return addons.NodeReady(ctx, client, config.Name) })
		if err != nil {
			return withLog(err, config, node.Kubelet)
		}
	}
	err = await(ctx, func(ctx context.Context) error { return addons.Ready(ctx, client, addons.DNS) })
	if err != nil {
		return withLog(err, nodes[0], node.Kubelet)
	}
	p.done(began, "nodes and CoreDNS are ready")
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
	return fmt.Errorf("%w. The end of the log of %s:\n%s", err, config.Label(component), tail(filepath.Join(config.LogDir(), component+".log")))
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
