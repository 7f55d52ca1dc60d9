package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/version"
)

// host is the way to the host cluster: kubectl's own flags, and what they lead
// to. A context that leads into a tenant stands for the host it belongs to.
type host struct {
	flags    *genericclioptions.ConfigFlags
	warnings io.Writer

	resolved bool
	inside   *rest.Config // of the pod that this runs in, if that is the way
	context  string       // of the host, if a kubeconfig is
	server   string
}

func newHost(warnings io.Writer) *host {
	return &host{flags: genericclioptions.NewConfigFlags(false), warnings: warnings}
}

// addFlags adds those of kubectl's flags that choose the host and who one is.
func (h *host) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(h.flags.KubeConfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, or ~/.kube/config)")
	flags.StringVar(h.flags.Context, "context", "", "kubeconfig context of the host cluster (default: the current one)")
	flags.StringVar(h.flags.Impersonate, "as", "", "user to act as on the host")
	flags.StringArrayVar(h.flags.ImpersonateGroup, "as-group", nil, "group to act as on the host, may be repeated")
	flags.StringVar(h.flags.Timeout, "request-timeout", "0", "time for one request to the host, such as 10s; 0 for no limit")
}

// arguments are the flags that lead another process of ours to the same host.
func (h *host) arguments() ([]string, error) {
	arguments := []string{"--context", h.context}
	if file := *h.flags.KubeConfig; file != "" {
		absolute, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, "--kubeconfig", absolute)
	}
	if user := *h.flags.Impersonate; user != "" {
		arguments = append(arguments, "--as", user)
	}
	for _, group := range *h.flags.ImpersonateGroup {
		arguments = append(arguments, "--as-group", group)
	}
	return arguments, nil
}

// raw reads the kubeconfig.
func (h *host) raw() (clientcmdapi.Config, clientcmd.ConfigAccess, error) {
	loader := h.flags.ToRawKubeConfigLoader()
	config, err := loader.RawConfig()
	if err != nil {
		return config, nil, hint(fmt.Errorf("reading the kubeconfig: %w", err), "Choose another file with --kubeconfig or KUBECONFIG.")
	}
	return config, loader.ConfigAccess(), nil
}

// resolve finds the context of the host without asking it anything.
func (h *host) resolve() error {
	if h.resolved {
		return nil
	}
	config, access, err := h.raw()
	if err != nil {
		return err
	}
	chosen := *h.flags.Context
	if chosen == "" {
		chosen = config.CurrentContext
	}
	context := kubeconfig.Host(&config, chosen)
	if context == "" {
		// In a pod; perhaps connected to a tenant from there.
		if inside, err := rest.InClusterConfig(); err == nil {
			h.inside, h.server, h.resolved = inside, inside.Host, true
			return nil
		}
		return hint(fmt.Errorf("no host cluster: %s", noContext(config, access)),
			"Set KUBECONFIG, or choose a cluster with --kubeconfig or --context.")
	}
	entry, ok := config.Contexts[context]
	if !ok {
		err := fmt.Errorf("the kubeconfig (%s) has no context %q", files(access), context)
		if context != chosen {
			return hint(err, "The context %q leads into a tenant of that host. Name the host's context with --context.", chosen)
		}
		return hint(err, "It has: %s.", strings.Join(contextNames(config), ", "))
	}
	if cluster := config.Clusters[entry.Cluster]; cluster != nil {
		h.server = cluster.Server
	}
	*h.flags.Context = context
	h.context = context
	h.resolved = true
	return nil
}

func noContext(config clientcmdapi.Config, access clientcmd.ConfigAccess) string {
	if len(config.Contexts) == 0 {
		return "there is no kubeconfig with a context in it (looked at " + files(access) + ")"
	}
	return "the kubeconfig (" + files(access) + ") has no current context"
}

func files(access clientcmd.ConfigAccess) string {
	if access.IsExplicitFile() {
		return access.GetExplicitFile()
	}
	return strings.Join(access.GetLoadingPrecedence(), ", ")
}

// where says which host was meant, for errors.
func (h *host) where() string {
	if !h.resolved || h.context == "" {
		return "this cluster"
	}
	file := ""
	if _, access, err := h.raw(); err == nil {
		file = "kubeconfig " + files(access) + ", "
	}
	return fmt.Sprintf("%scontext %q, server %s", file, h.context, h.server)
}

// config is how to reach the host's API.
func (h *host) config() (*rest.Config, error) {
	if err := h.resolve(); err != nil {
		return nil, err
	}
	config := h.inside
	if config == nil {
		var err error
		if config, err = h.flags.ToRESTConfig(); err != nil {
			return nil, hint(fmt.Errorf("reading the kubeconfig: %w", err), "Choose another context with --context.")
		}
	}
	config = rest.CopyConfig(config)
	config.UserAgent = "sublet/" + version.Get().Version
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NewWarningWriter(h.warnings, rest.WarningWriterOptions{Deduplicate: true})
	if config.Timeout == 0 && config.Dial == nil {
		// A host that is switched off should not take minutes to say so.
		config.Dial = newDialer(10 * time.Second)
	}
	return config, nil
}

// hostClients are the clients of the host's API.
type hostClients struct {
	config  *rest.Config
	kube    kubernetes.Interface
	tenants *tenantClient
}

func (h *host) clients() (*hostClients, error) {
	config, err := h.config()
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	tenants, err := newTenantClient(config)
	if err != nil {
		return nil, err
	}
	return &hostClients{config: config, kube: kube, tenants: tenants}, nil
}

// modify changes the kubeconfig, in the files that its parts are in. The change
// is skipped when it returns false.
func (h *host) modify(change func(*clientcmdapi.Config) (bool, error)) error {
	access := h.flags.ToRawKubeConfigLoader().ConfigAccess()
	config, err := access.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	changed, err := change(config)
	if err != nil || !changed {
		return err
	}
	if err := clientcmd.ModifyConfig(access, *config, false); err != nil {
		if errors.Is(err, os.ErrExist) {
			return hint(fmt.Errorf("the kubeconfig (%s) is locked: %w", files(access), err), "Another program writes to it. If none does, remove the .lock file.")
		}
		return hint(fmt.Errorf("writing the kubeconfig: %w", err), "Choose a file that can be written with --kubeconfig.")
	}
	return nil
}

// target is the file that new contexts go to.
func (h *host) target() string {
	return h.flags.ToRawKubeConfigLoader().ConfigAccess().GetDefaultFilename()
}

// environment is the process's, with paths that do not depend on the current
// directory.
func (h *host) environment() []string {
	env := os.Environ()
	for i, entry := range env {
		list, ok := strings.CutPrefix(entry, clientcmd.RecommendedConfigPathEnvVar+"=")
		if !ok || list == "" {
			continue
		}
		paths := filepath.SplitList(list)
		for j, path := range paths {
			if absolute, err := filepath.Abs(path); err == nil && path != "" {
				paths[j] = absolute
			}
		}
		env[i] = clientcmd.RecommendedConfigPathEnvVar + "=" + strings.Join(paths, string(filepath.ListSeparator))
	}
	return env
}

func contextNames(config clientcmdapi.Config) []string {
	names := make([]string, 0, len(config.Contexts))
	for name := range config.Contexts {
		names = append(names, name)
	}
	return sorted(names)
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	config, _, err := a.host.raw()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return contextNames(config), cobra.ShellCompDirectiveNoFileComp
}

// completeTenants completes the names of tenants, but not for long.
func (a *app) completeTenants(many bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
		defer cancel()
		clients, err := a.host.clients()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		tenants, err := a.visible(ctx, clients)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, tenant := range tenants.Items {
			if !contains(args, tenant.Name) {
				names = append(names, tenant.Name+"\t"+string(tenant.Spec.Type))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
