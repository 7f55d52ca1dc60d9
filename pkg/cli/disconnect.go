package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sublet-dev/sublet/pkg/cli/forward"
	"github.com/sublet-dev/sublet/pkg/kubeconfig"
)

// disconnectOptions are the flags of disconnect.
type disconnectOptions struct {
	*app
	name string
	all  bool
}

func newDisconnectCommand(a *app) *cobra.Command {
	o := &disconnectOptions{app: a}
	cmd := &cobra.Command{
		Use:   "disconnect [NAME]",
		Short: "Switch kubectl back to the host and end the port-forward",
		Long: `Remove the context of a tenant from your kubeconfig, switch back to the context
that was current before, and end the port-forward. Without a name: of the tenant
that you are connected to.`,
		Example: examples(a.name, `
%[1]s disconnect
%[1]s disconnect acme
%[1]s disconnect --all`),
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			config, _, err := a.host.raw()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range connections(&config) {
				names = append(names, c.Tenant)
			}
			return slices.Compact(sorted(names)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: a.run(func(_ context.Context, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			return o.run()
		}),
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all tenants that you are connected to")
	return cmd
}

// connected is a context that leads into a tenant.
type connected struct {
	context string
	kubeconfig.Connection
}

func connections(config *clientcmdapi.Config) []connected {
	var list []connected
	for _, name := range contextNames(*config) {
		if c, ok := kubeconfig.ConnectionOf(config.Contexts[name]); ok {
			list = append(list, connected{name, c})
		}
	}
	return list
}

// choose picks the connections that are meant.
func (o *disconnectOptions) choose(config *clientcmdapi.Config) ([]connected, error) {
	all := connections(config)
	if o.all {
		return all, nil
	}
	if o.name == "" {
		for _, c := range all {
			if c.context == config.CurrentContext {
				return []connected{c}, nil
			}
		}
		switch len(all) {
		case 0:
			return nil, hint(errors.New("you are not connected to any tenant"), "%q connects.", o.app.name+" connect NAME")
		case 1:
			return all, nil
		}
		return nil, usagef("you are connected to several tenants: name one of %s, or use --all", quoteList(tenantsOf(all), "and"))
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(c connected) bool { return c.Tenant != o.name && c.context != o.name })
	if len(chosen) == 0 {
		err := fmt.Errorf("you are not connected to a tenant %q", o.name)
		if len(all) == 0 {
			return nil, hint(err, "You are not connected to any.")
		}
		return nil, hint(err, "You are connected to %s.", quoteList(tenantsOf(all), "and"))
	}
	// With tenants of that name on several hosts, the present host's is meant.
	host := kubeconfig.Host(config, config.CurrentContext)
	here := slices.DeleteFunc(slices.Clone(chosen), func(c connected) bool { return c.HostContext != host })
	if len(here) > 0 {
		return here, nil
	}
	return chosen, nil
}

func tenantsOf(list []connected) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.Tenant)
	}
	return slices.Compact(sorted(names))
}

func (o *disconnectOptions) run() error {
	if o.all && o.name != "" {
		return usagef("name a tenant or use --all, not both")
	}
	config, _, err := o.host.raw()
	if err != nil {
		return err
	}
	chosen, err := o.choose(&config)
	if err != nil {
		// A printed kubeconfig has a forward and no context.
		if o.name == "" || !o.stopPrinted() {
			return err
		}
		o.printf("Ended the port-forward to tenant %s.\n", o.name)
		return nil
	}
	var problems []error
	for _, c := range chosen {
		now, err := o.disconnect(c)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		o.printf("Disconnected from tenant %s.%s\n", c.Tenant, currentContext(now))
	}
	if o.all && len(chosen) == 0 {
		o.printf("You are not connected to any tenant.\n")
	}
	return errors.Join(problems...)
}

func currentContext(name string) string {
	if name == "" {
		return " There is no current context now."
	}
	return " The current context is " + name + "."
}

// stopPrinted ends forwards to the named tenant that no context belongs to.
func (o *disconnectOptions) stopPrinted() (found bool) {
	store, err := o.store()
	if err != nil {
		return false
	}
	if err := o.host.resolve(); err != nil {
		return false
	}
	id := forward.ID(o.name, o.host.server, o.host.target())
	if _, err := store.Load(id); err != nil {
		return false
	}
	return store.Stop(id) == nil
}

// disconnect removes one connection; it returns the context that is current
// then.
func (a *app) disconnect(c connected) (current string, _ error) {
	current, err := a.removeContext(c.context)
	if err != nil {
		return "", err
	}
	if c.Forward == "" {
		return current, nil
	}
	store, err := a.store()
	if err != nil {
		return "", err
	}
	return current, store.Stop(c.Forward)
}

// removeContext takes the context of a connection out of the kubeconfig.
func (a *app) removeContext(name string) (current string, _ error) {
	return current, a.host.modify(func(config *clientcmdapi.Config) (bool, error) {
		_, exists := config.Contexts[name]
		kubeconfig.Disconnect(config, name)
		current = config.CurrentContext
		return exists, nil
	})
}

// forget removes every context that the forward of that ID serves.
func (a *app) forget(id string) error {
	return a.host.modify(func(config *clientcmdapi.Config) (bool, error) {
		changed := false
		for _, c := range connections(config) {
			if c.Forward == id {
				kubeconfig.Disconnect(config, c.context)
				changed = true
			}
		}
		return changed, nil
	})
}
