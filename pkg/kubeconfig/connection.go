package kubeconfig

import (
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// connectionExtension is the name of the extension that marks a context as one
// that leads into a tenant.
const connectionExtension = "sublet.dev/connection"

// Connection is what a context that leads into a tenant remembers about where
// it came from. It is stored in the context itself, so that it is gone with it.
type Connection struct {
	// Tenant that the context leads to.
	Tenant string `json:"tenant"`
	// HostContext is the context through which the tenant was found, and
	// HostServer the host's API there.
	HostContext string `json:"hostContext"`
	HostServer  string `json:"hostServer,omitempty"`
	// Previous is the context to switch back to.
	Previous string `json:"previous,omitempty"`
	// Forward names the port-forward in the background that serves the context;
	// empty when there is none.
	Forward string `json:"forward,omitempty"`
}

// ConnectionOf tells whether a context leads into a tenant, and what it
// remembers.
func ConnectionOf(context *clientcmdapi.Context) (Connection, bool) {
	if context == nil {
		return Connection{}, false
	}
	unknown, ok := context.Extensions[connectionExtension].(*runtime.Unknown)
	if !ok {
		return Connection{}, false
	}
	var c Connection
	if err := json.Unmarshal(unknown.Raw, &c); err != nil || c.Tenant == "" {
		return Connection{}, false
	}
	return c, true
}

// Host tells the context of the host that a context belongs to: the one that a
// connection remembers, else the context itself.
func Host(config *clientcmdapi.Config, context string) string {
	if c, ok := ConnectionOf(config.Contexts[context]); ok {
		return c.HostContext
	}
	return context
}

// ContextName chooses the context's name for a connection: sublet-TENANT, or,
// when another one has that name already, one that also names the host.
func ContextName(config *clientcmdapi.Config, c Connection) string {
	name := "sublet-" + c.Tenant
	context, taken := config.Contexts[name]
	if !taken {
		return name
	}
	old, ours := ConnectionOf(context)
	if ours && old.Tenant == c.Tenant && old.HostServer == c.HostServer {
		return name
	}
	return name + "@" + c.HostContext
}

// Connect adds the current context of entry to config under the given name,
// marks it as a connection, and switches to it. What was there under that name
// is replaced. The context to go back to is the one that was current before any
// connection: connections do not stack.
func Connect(config, entry *clientcmdapi.Config, name string, c Connection) error {
	source, ok := entry.Contexts[entry.CurrentContext]
	if !ok {
		return fmt.Errorf("the tenant's kubeconfig has no context %q", entry.CurrentContext)
	}
	cluster, user := entry.Clusters[source.Cluster], entry.AuthInfos[source.AuthInfo]
	if cluster == nil || user == nil {
		return errors.New("the tenant's kubeconfig has no cluster or no user")
	}
	c.Previous = previous(config, c.HostContext)
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("remembering the connection: %w", err)
	}
	context := source.DeepCopy()
	context.Cluster, context.AuthInfo = name, name
	context.LocationOfOrigin = locationOf(config, name)
	context.Extensions = map[string]runtime.Object{
		connectionExtension: &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON},
	}
	cluster, user = cluster.DeepCopy(), user.DeepCopy()
	cluster.LocationOfOrigin, user.LocationOfOrigin = context.LocationOfOrigin, context.LocationOfOrigin
	config.Clusters[name], config.AuthInfos[name], config.Contexts[name] = cluster, user, context
	config.CurrentContext = name
	return nil
}

// locationOf keeps a context in the file that it is in already.
func locationOf(config *clientcmdapi.Config, name string) string {
	if old := config.Contexts[name]; old != nil {
		return old.LocationOfOrigin
	}
	return ""
}

func previous(config *clientcmdapi.Config, hostContext string) string {
	current := config.CurrentContext
	c, ok := ConnectionOf(config.Contexts[current])
	if !ok {
		return current
	}
	if _, exists := config.Contexts[c.Previous]; exists {
		return c.Previous
	}
	return hostContext
}

// Disconnect removes a connection's context with its cluster and its user, and
// switches back if it was the current one. It reports whether it switched, and
// does nothing to a context that is not a connection.
func Disconnect(config *clientcmdapi.Config, name string) (switched bool) {
	context := config.Contexts[name]
	c, ok := ConnectionOf(context)
	if !ok {
		return false
	}
	delete(config.Contexts, name)
	if context.Cluster == name {
		delete(config.Clusters, name)
	}
	if context.AuthInfo == name {
		delete(config.AuthInfos, name)
	}
	if config.CurrentContext != name {
		return false
	}
	config.CurrentContext = ""
	for _, candidate := range []string{c.Previous, c.HostContext} {
		if _, exists := config.Contexts[candidate]; exists {
			config.CurrentContext = candidate
			break
		}
	}
	return true
}
