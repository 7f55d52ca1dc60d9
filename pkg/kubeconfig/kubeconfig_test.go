package kubeconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func TestMarshal(t *testing.T) {
	entry := Entry{
		Name:          "acme",
		Server:        "https://10.0.0.1:6443",
		CA:            []byte("ca"),
		ClientCert:    []byte("cert"),
		ClientKey:     []byte("key"),
		Namespace:     "shop",
		TLSServerName: "sublet.acme.svc",
	}
	content, err := Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.NewClientConfigFromBytes(content)
	if err != nil {
		t.Fatal(err)
	}
	namespace, _, err := config.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	rest, err := config.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	got := Entry{
		Name:          "acme",
		Server:        rest.Host,
		CA:            rest.CAData,
		ClientCert:    rest.CertData,
		ClientKey:     rest.KeyData,
		Token:         rest.BearerToken,
		Namespace:     namespace,
		TLSServerName: rest.ServerName,
	}
	if diff := cmp.Diff(entry, got); diff != "" {
		t.Errorf("what a client reads from Marshal() -want +got:\n%s", diff)
	}
}

func TestBuildSwitchesToItsContext(t *testing.T) {
	config := Build(Entry{Name: "acme", Server: "https://10.0.0.1:6443", Token: "secret"})
	if config.CurrentContext != "acme" || config.AuthInfos["acme"].Token != "secret" {
		t.Errorf("Build() = %+v", config)
	}
	if err := clientcmd.Validate(*config); err != nil {
		t.Errorf("Build() is not valid: %v", err)
	}
}
