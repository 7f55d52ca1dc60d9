// Package dns is a tenant's cluster DNS: CoreDNS with its kubernetes, cache and
// forward plugins, as a library in the tenant's process.
//
//	query ─► errors ─► ownname ─► kubernetes ─► fence ─► cache ─► forward
//	                   a pod's    the tenant's  others'           the host's DNS
//	                   own name   names         names end here
//
// CoreDNS is usually started by caddy, which keeps its instances, signals and
// reloads for the whole process. Here the same plugins are put together
// without it, so that several servers live side by side and end with their
// contexts.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/cache"  // the directive cache
	_ "github.com/coredns/coredns/plugin/errors" // the directive errors
	"github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// DefaultClusterDomain is the domain of a cluster that names none.
const DefaultClusterDomain = "cluster.local"

// The server answers once the tenant's names are read; if that takes longer than
// syncTimeout, it begins nevertheless, and says of these names that it failed.
const (
	syncPoll    = 5 * time.Millisecond
	syncTimeout = 30 * time.Second
)

// Options of a DNS server.
type Options struct {
	// Listen is HOST:PORT for UDP and TCP; the default is ":1053".
	Listen string
	// ClusterDomain defaults to DefaultClusterDomain.
	ClusterDomain string
	// Config reaches the tenant's API. Required.
	Config *rest.Config
	// Upstreams answer for all names outside of the cluster domain: addresses,
	// with or without port, or paths of files like resolv.conf. The default is
	// /etc/resolv.conf. An upstream must not lead back here. Names in the host's
	// cluster domain, if such a file tells it, are not asked of them.
	Upstreams []string
}

// Run serves until ctx ends, and then returns nil.
func Run(ctx context.Context, o Options) error {
	if o.Listen == "" {
		o.Listen = ":1053"
	}
	tcp, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	defer func() { _ = tcp.Close() }()
	// The address of the listener, so that a port 0 is the same for both.
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	defer func() { _ = udp.Close() }()
	return serve(ctx, o, tcp, udp)
}

func serve(ctx context.Context, o Options, tcp net.Listener, udp net.PacketConn) (err error) {
	if o.Config == nil {
		return errors.New("dns: option Config is missing")
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = DefaultClusterDomain
	}
	if len(o.Upstreams) == 0 {
		o.Upstreams = []string{"/etc/resolv.conf"}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	chain := &chain{config: &dnsserver.Config{Zone: ".", Transport: "dns"}}
	for _, add := range []func() error{
		// Without it failures are silent; with more a broken upstream floods the log.
		func() error { return chain.directive("errors {\n consolidate 1m .* warning\n}") },
		func() error { return chain.ownName(o) },
		func() error { return chain.kubernetes(ctx, o) },
		func() error {
			domains := hostDomains(o.Upstreams)
			chain.config.AddPlugin(func(next plugin.Handler) plugin.Handler { return fence{next: next, domains: domains} })
			return nil
		},
		// After kubernetes, so that the tenant's own names are always fresh.
		func() error { return chain.directive("cache 30") },
		func() error { return chain.forward(o) },
	} {
		if err := add(); err != nil {
			return fmt.Errorf("dns: %w", err)
		}
	}
	defer func() { err = errors.Join(err, chain.shutdown()) }()
	for _, start := range chain.onStartup {
		if err := start(); err != nil {
			return fmt.Errorf("dns: starting: %w", err)
		}
	}

	server, err := dnsserver.NewServer("dns://"+tcp.Addr().String(), []*dnsserver.Config{chain.config})
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(tcp) }()
	go func() { failed <- server.ServePacket(udp) }()
	var failure error
	running := 2
	select {
	case failure = <-failed:
		running--
	case <-ctx.Done():
	}
	_ = server.Stop() // its only error is that queries were still being answered
	_ = tcp.Close()
	_ = udp.Close()
	for range running {
		<-failed
	}
	if failure != nil {
		return fmt.Errorf("dns: serving: %w", failure)
	}
	return nil
}

// chain collects what CoreDNS's plugins register as they are set up.
type chain struct {
	config     *dnsserver.Config
	onStartup  []func() error
	onShutdown []func() error
}

// directive sets up a plugin from the text that would stand in a Corefile.
func (c *chain) directive(text string) error {
	plugins, err := parse(text)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		c.config.AddPlugin(p)
	}
	return nil
}

func parse(text string) ([]plugin.Plugin, error) {
	name, _, _ := strings.Cut(text, " ")
	setup, err := caddy.DirectiveAction("dns", name)
	if err != nil {
		return nil, err
	}
	// It is named for tests, but it is what makes a controller that belongs to
	// no instance that caddy keeps.
	controller := caddy.NewTestController("dns", text)
	if err := setup(controller); err != nil {
		return nil, err
	}
	return dnsserver.GetConfig(controller).Plugin, nil
}

// forward sends what is not the cluster's to the upstreams. The limit ends the
// loop that an upstream would make which leads back here.
func (c *chain) forward(o Options) error {
	plugins, err := parse("forward . " + strings.Join(o.Upstreams, " ") + " {\n max_concurrent 1000\n}")
	if err != nil {
		return err
	}
	for _, p := range plugins {
		f, ok := p(nil).(*forward.Forward)
		if !ok {
			return errors.New("the directive forward made another plugin")
		}
		c.onStartup = append(c.onStartup, f.OnStartup)
		c.onShutdown = append(c.onShutdown, f.OnShutdown)
		c.config.AddPlugin(func(next plugin.Handler) plugin.Handler {
			f.Next = next
			return f
		})
	}
	return nil
}

func (c *chain) ownName(o Options) error {
	config := rest.CopyConfig(o.Config)
	config.QPS = -1
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return err
	}
	zone := dns.CanonicalName("svc." + o.ClusterDomain)
	c.config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		return &ownName{next: next, zone: zone, pods: client}
	})
	return nil
}

// kubernetes sets up the plugin of that name with the tenant's loopback
// config. Its own setup would take a kubeconfig file, and would redirect the
// log of the whole process.
func (c *chain) kubernetes(ctx context.Context, o Options) error {
	controller := caddy.NewTestController("dns", strings.Join([]string{
		"kubernetes " + o.ClusterDomain + " in-addr.arpa ip6.arpa {",
		"pods insecure", // as kubeadm has it; needs no watch on pods
		"fallthrough in-addr.arpa ip6.arpa",
		"ttl 30",
		"}",
	}, "\n"))
	controller.Next()
	k, err := kubernetes.ParseStanza(controller)
	if err != nil {
		return err
	}
	config := rest.CopyConfig(o.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	k.ClientConfig = clientConfig{config}
	// Its own start looks ten times a second whether the cache is filled, for the
	// first time after a tenth.
	_, stop, err := k.InitKubeCache(ctx)
	if err != nil {
		return err
	}
	c.onStartup = append(c.onStartup, func() error {
		go k.APIConn.Run()
		_ = wait.PollUntilContextTimeout(ctx, syncPoll, syncTimeout, true, func(context.Context) (bool, error) {
			return k.APIConn.HasSynced(), nil
		})
		return nil
	})
	c.onShutdown = append(c.onShutdown, stop)
	c.config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		k.Next = next
		return k
	})
	return nil
}

func (c *chain) shutdown() error {
	var all []error
	for _, stop := range c.onShutdown {
		all = append(all, stop())
	}
	return errors.Join(all...)
}

// clientConfig is a clientcmd.ClientConfig of a config that is known already.
type clientConfig struct{ config *rest.Config }

func (c clientConfig) ClientConfig() (*rest.Config, error)          { return c.config, nil }
func (clientConfig) RawConfig() (clientcmdapi.Config, error)        { return clientcmdapi.Config{}, nil }
func (clientConfig) Namespace() (namespace string, _ bool, _ error) { return "", false, nil }
func (clientConfig) ConfigAccess() clientcmd.ConfigAccess           { return nil }
