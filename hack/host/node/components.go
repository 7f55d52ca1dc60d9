//go:build linux

package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sublet-dev/sublet/hack/host/sandbox"
	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// component is a part of the node. Exactly one of program and run is set.
type component struct {
	name  string
	after []string
	// program is one of its own, or this one if self is true; run is a part of this
	// one.
	program func(Config) []string
	self    bool
	run     func(context.Context, Config) error
	ready   func(Config) func(context.Context) error
	// namespaces that it gets of its own.
	namespaces uintptr
}

// components lists everything that runs on a node, each after those that it
// needs.
func components(c Config) []component {
	all := []component{containerRuntime(), pulls()}
	if c.First() {
		all = append(all, controlPlane(), scheduler())
	}
	all = append(all, kubelet(), proxy(), policies(), storage())
	for _, name := range c.Further {
		all = append(all, further(name))
	}
	return all
}

// further is another node: all of it is in namespaces of its own, which end with
// their first process.
func further(name string) component {
	return component{name: name, program: func(c Config) []string { return []string{"init", name, c.Root} }, self: true, namespaces: sandbox.Namespaces}
}

// Names lists the components of a node in the order in which they start.
func Names(c Config) []string {
	var names []string
	for _, part := range components(c) {
		names = append(names, part.name)
	}
	return names
}

// Components says how to run each of them: as `self run <name> <state directory>`,
// if it is a part of this program.
func Components(c Config, self string) []supervise.Component {
	var all []supervise.Component
	for _, part := range components(c) {
		argv := []string{self, "run", part.name, c.Dir}
		switch {
		case part.self:
			argv = append([]string{self}, part.program(c)...)
		case part.program != nil:
			argv = part.program(c)
		}
		supervised := supervise.Component{Name: part.name, Argv: argv, After: part.after, Namespaces: part.namespaces}
		if part.ready != nil {
			supervised.Ready = part.ready(c)
		}
		// It has another supervisor.
		if !c.First() && slices.Contains(part.after, ControlPlane) {
			supervised.After = slices.DeleteFunc(slices.Clone(part.after), func(name string) bool { return name == ControlPlane })
			supervised.Needs = func(ctx context.Context) error { return apiReady(ctx, c) }
		}
		all = append(all, supervised)
	}
	return all
}

// Run runs one component in this process until the context ends.
func Run(ctx context.Context, c Config, name string) error {
	all := components(c)
	index := slices.IndexFunc(all, func(part component) bool { return part.name == name && part.run != nil })
	if index < 0 {
		return fmt.Errorf("there is no component %q in this program", name)
	}
	return all[index].run(ctx, c)
}

// RESTConfig is that of the administrator.
func (c Config) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the local host's kubeconfig: %w", err)
	}
	// The machine may have a proxy for the internet.
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return config, nil
}

// healthy asks for a 200 over plain HTTP on loopback.
func healthy(address string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{}}
	return func(ctx context.Context) error { return get(ctx, client, address) }
}

func get(ctx context.Context, client *http.Client, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", address, response.Status)
	}
	return nil
}

// listening asks whether a unix socket answers.
func listening(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
