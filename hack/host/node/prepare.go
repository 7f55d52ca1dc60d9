package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	caFile              = "ca.crt"
	kubeletCert         = "kubelet.crt"
	kubeletKey          = "kubelet.key"
	kubeletKubeconfig   = "kubelet.kubeconfig"
	proxyKubeconfig     = "kube-proxy.kubeconfig"
	schedulerKubeconfig = "kube-scheduler.kubeconfig"

	// lifetime of credentials. They are made anew whenever the host starts.
	lifetime = 365 * 24 * time.Hour
)

// Prepare writes everything that the components read: configuration and
// credentials. Authorities are made once and kept.
func (c Config) Prepare(now time.Time) error {
	bundle, err := c.authorities(now)
	if err != nil {
		return err
	}
	files, err := c.Render()
	if err != nil {
		return err
	}
	if err := c.credentials(files, bundle, now); err != nil {
		return err
	}
	for path, content := range files {
		path = c.path(path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the directory of %s: %w", path, err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if !c.First() {
		return nil
	}
	admin, err := c.kubeconfig(bundle, pki.Leaf{CommonName: "sublet-host-admin", Organizations: []string{"system:masters"}}, now)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Kubeconfig(), admin, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}

func (c Config) pkiDir() string { return filepath.Join(c.Root, "pki") }

func (c Config) authorities(now time.Time) (*pki.Bundle, error) {
	if _, err := os.Stat(c.pkiDir()); errors.Is(err, fs.ErrNotExist) {
		bundle, err := pki.NewBundle("sublet-host", now)
		if err != nil {
			return nil, err
		}
		// Renamed when whole: an interrupted start must not leave half of it.
		next := c.pkiDir() + ".next"
		if err := bundle.Save(next); err != nil {
			return nil, err
		}
		if err := os.Rename(next, c.pkiDir()); err != nil {
			return nil, fmt.Errorf("keep the authorities: %w", err)
		}
	}
	bundle, err := pki.LoadBundle(c.pkiDir())
	if err != nil {
		return nil, fmt.Errorf("load the authorities (`host down` removes them, with everything): %w", err)
	}
	return bundle, nil
}

// credentials adds those of the node's components to files.
func (c Config) credentials(files map[string][]byte, bundle *pki.Bundle, now time.Time) error {
	users := map[string]pki.Leaf{
		kubeletKubeconfig: {CommonName: "system:node:" + c.Name, Organizations: []string{"system:nodes"}},
		proxyKubeconfig:   {CommonName: "system:kube-proxy"},
	}
	if c.First() {
		users[schedulerKubeconfig] = pki.Leaf{CommonName: "system:kube-scheduler"}
	}
	for path, leaf := range users {
		content, err := c.kubeconfig(bundle, leaf, now)
		if err != nil {
			return err
		}
		files[path] = content
	}
	cert, key, err := bundle.CA.Issue(pki.Leaf{
		CommonName: "system:node:" + c.Name,
		DNSNames:   []string{c.Name},
		IPs:        []net.IP{c.Address.AsSlice()},
		Server:     true,
		Lifetime:   lifetime,
	}, now)
	if err != nil {
		return fmt.Errorf("issue the kubelet's certificate: %w", err)
	}
	files[caFile], files[kubeletCert], files[kubeletKey] = bundle.CA.CertPEM, cert, key
	return nil
}

func (c Config) kubeconfig(bundle *pki.Bundle, leaf pki.Leaf, now time.Time) ([]byte, error) {
	leaf.Client, leaf.Lifetime = true, lifetime
	cert, key, err := bundle.CA.Issue(leaf, now)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of %s: %w", leaf.CommonName, err)
	}
	return kubeconfig.Marshal(kubeconfig.Entry{
		Name:       "sublet-host",
		Server:     c.Server(),
		CA:         bundle.CA.CertPEM,
		ClientCert: cert,
		ClientKey:  key,
	})
}
