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

	"github.com/sublet-dev/sublet/hack/host/supervise"
)

// component is a part of the node. Exactly one of program and run is set.
type component struct {
	name  string
	after []string
	// program is one of its own, run a part of this one.
	program func(Config) []string
	run     func(context.Context, Config) error
	ready   func(Config) func(context.Context) error
}

// components lists everything that runs, each after those that it needs.
func components() []component {
	return []component{
		containerRuntime(),
		controlPlane(),
		scheduler(),
		kubelet(),
		proxy(),
		policies(),
		storage(),
	}
}

// Names lists the components in the order in which they start.
func Names() []string {
	var names []string
	for _, c := range components() {
		names = append(names, c.name)
	}
	return names
}

// Components says how to run each of them: as `self run <name> <state directory>`,
// if it is a part of this program.
func Components(c Config, self string) []supervise.Component {
	var all []supervise.Component
	for _, part := range components() {
		argv := []string{self, "run", part.name, c.Dir}
		if part.program != nil {
			argv = part.program(c)
		}
		supervised := supervise.Component{Name: part.name, Argv: argv, After: part.after}
		if part.ready != nil {
			supervised.Ready = part.ready(c)
		}
		all = append(all, supervised)
	}
	return all
}

// Run runs one component in this process until the context ends.
func Run(ctx context.Context, c Config, name string) error {
	all := components()
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
