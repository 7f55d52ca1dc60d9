package kubeconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// hostConfig is a kubeconfig with two hosts, and dev as the current context.
func hostConfig() *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	for _, name := range []string{"dev", "prod"} {
		config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + name}
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: name}
		config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	}
	config.CurrentContext = "dev"
	return config
}

func connection(tenant, host string) Connection {
	return Connection{Tenant: tenant, HostContext: host, HostServer: "https://" + host}
}

func connect(t *testing.T, config *clientcmdapi.Config, c Connection) string {
	t.Helper()
	name := ContextName(config, c)
	entry := Build(Entry{Name: c.Tenant, Server: "https://127.0.0.1:1", Token: "t-" + c.Tenant})
	if err := Connect(config, entry, name, c); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestConnectAndBack(t *testing.T) {
	config := hostConfig()
	name := connect(t, config, connection("acme", "dev"))
	if name != "sublet-acme" || config.CurrentContext != name {
		t.Errorf("the context is %q and %q is current, want sublet-acme for both", name, config.CurrentContext)
	}
	if !Disconnect(config, name) {
		t.Error("disconnecting from the current context did not switch")
	}
	if diff := cmp.Diff(hostConfig(), config); diff != "" {
		t.Errorf("something is left or lost (-want +got):\n%s", diff)
	}
}

func TestConnectionSurvivesAFile(t *testing.T) {
	config := hostConfig()
	want := connection("acme", "dev")
	want.Forward = "acme-1234"
	name := connect(t, config, want)
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := clientcmd.Load(content)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := ConnectionOf(loaded.Contexts[name])
	if !ok {
		t.Fatalf("the context is not a connection any more:\n%s", content)
	}
	want.Previous = "dev"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the connection changed on its way through a file (-want +got):\n%s", diff)
	}
	if Host(loaded, name) != "dev" || Host(loaded, "prod") != "prod" {
		t.Error("the host of a connection is its host context, that of another context itself")
	}
}

func TestContextName(t *testing.T) {
	cases := map[string]struct {
		before func(t *testing.T, config *clientcmdapi.Config)
		want   string
		reason string
	}{
		"free": {func(*testing.T, *clientcmdapi.Config) {}, "sublet-acme", "the short name when nobody has it"},
		"the same tenant again": {
			func(t *testing.T, config *clientcmdapi.Config) { connect(t, config, connection("acme", "dev")) },
			"sublet-acme", "connecting again replaces the context",
		},
		"of another host": {
			func(t *testing.T, config *clientcmdapi.Config) { connect(t, config, connection("acme", "prod")) },
			"sublet-acme@dev", "two hosts may each have a tenant of that name",
		},
		"made by people": {
			func(_ *testing.T, config *clientcmdapi.Config) {
				config.Contexts["sublet-acme"] = &clientcmdapi.Context{Cluster: "dev", AuthInfo: "dev"}
			},
			"sublet-acme@dev", "a context that is not ours is never overwritten",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			config := hostConfig()
			test.before(t, config)
			if got := ContextName(config, connection("acme", "dev")); got != test.want {
				t.Errorf("got %q, want %q: %s", got, test.want, test.reason)
			}
		})
	}
}

func TestDisconnect(t *testing.T) {
	cases := map[string]struct {
		change  func(t *testing.T, config *clientcmdapi.Config)
		context string
		current string
		reason  string
	}{
		"from one tenant after another": {
			func(t *testing.T, config *clientcmdapi.Config) {
				connect(t, config, connection("acme", "dev"))
				connect(t, config, connection("shop", "dev"))
			},
			"sublet-shop", "dev", "connections do not stack",
		},
		"to a context that is gone": {
			func(t *testing.T, config *clientcmdapi.Config) {
				config.CurrentContext = "prod"
				connect(t, config, connection("acme", "dev"))
				delete(config.Contexts, "prod")
			},
			"sublet-acme", "dev", "the host's context is the next best",
		},
		"with nothing to go back to": {
			func(t *testing.T, config *clientcmdapi.Config) {
				connect(t, config, connection("acme", "dev"))
				delete(config.Contexts, "dev")
			},
			"sublet-acme", "", "no current context is better than one that is not there",
		},
		"while another one is current": {
			func(t *testing.T, config *clientcmdapi.Config) {
				connect(t, config, connection("acme", "dev"))
				config.CurrentContext = "prod"
			},
			"sublet-acme", "prod", "people have switched by themselves",
		},
		"a context of people": {func(*testing.T, *clientcmdapi.Config) {}, "dev", "dev", "only connections are removed"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			config := hostConfig()
			test.change(t, config)
			Disconnect(config, test.context)
			if config.CurrentContext != test.current {
				t.Errorf("the current context is %q, want %q: %s", config.CurrentContext, test.current, test.reason)
			}
			if _, left := config.Contexts[test.context]; left != (test.context == "dev") {
				t.Errorf("context %q is there: %t", test.context, left)
			}
		})
	}
}
