// Package kubeconfig makes kubeconfigs for one cluster and one user.
package kubeconfig

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Entry is one context of a kubeconfig with its cluster and its user.
type Entry struct {
	// Name is that of the context, the cluster and the user.
	Name string
	// Server is the URL of the API.
	Server string
	// CA verifies the server; PEM. Without it the system's authorities do.
	CA []byte
	// ClientCert and ClientKey are PEM, Token a bearer token: the user proves
	// itself by the one or the other.
	ClientCert, ClientKey []byte
	Token                 string
	// Namespace is the default one of the context.
	Namespace string
	// TLSServerName is the name that the server's certificate must bear, when it
	// is not that of the URL.
	TLSServerName string
}

// Build makes a kubeconfig with that one context, switched to it.
func Build(e Entry) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters[e.Name] = &clientcmdapi.Cluster{
		Server:                   e.Server,
		TLSServerName:            e.TLSServerName,
		CertificateAuthorityData: e.CA,
	}
	config.AuthInfos[e.Name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: e.ClientCert,
		ClientKeyData:         e.ClientKey,
		Token:                 e.Token,
	}
	config.Contexts[e.Name] = &clientcmdapi.Context{
		Cluster:   e.Name,
		AuthInfo:  e.Name,
		Namespace: e.Namespace,
	}
	config.CurrentContext = e.Name
	return config
}

// Marshal is Build as YAML.
func Marshal(e Entry) ([]byte, error) {
	content, err := clientcmd.Write(*Build(e))
	if err != nil {
		return nil, fmt.Errorf("writing the kubeconfig %q: %w", e.Name, err)
	}
	return content, nil
}
