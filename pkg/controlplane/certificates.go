package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/klog/v2"

	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	// leafLifetime is that of certificates issued in the process, which are
	// replaced at two thirds of it without a restart.
	leafLifetime = 90 * 24 * time.Hour
	// renewRetry is how soon a renewal that failed is tried again.
	renewRetry = time.Minute

	frontProxyClientName = "front-proxy-client"
)

// certificates are the leafs of one control plane, kept fresh.
type certificates struct {
	leafs []*leafCertificate
	// serving is shown to clients, frontProxy to the servers of aggregated APIs.
	serving, frontProxy *leafCertificate
	// files that the API server reads by name.
	caFile, frontProxyCAFile         string
	kubeletClientCert, kubeletClient string
	frontProxyCert, frontProxyKey    string
}

// newCertificates issues everything, with files in runDir where the API server
// takes nothing but files. The keys of the authorities stay in memory.
func newCertificates(o Options, addresses []net.IP, runDir string) (*certificates, error) {
	c := &certificates{
		caFile:            filepath.Join(runDir, "ca.crt"),
		frontProxyCAFile:  filepath.Join(runDir, "front-proxy-ca.crt"),
		kubeletClientCert: filepath.Join(runDir, "kubelet-client.crt"),
		kubeletClient:     filepath.Join(runDir, "kubelet-client.key"),
		frontProxyCert:    filepath.Join(runDir, "front-proxy-client.crt"),
		frontProxyKey:     filepath.Join(runDir, "front-proxy-client.key"),
	}
	c.serving = &leafCertificate{name: "serving", authority: o.PKI.CA, leaf: servingLeaf(o, addresses)}
	kubelet := &leafCertificate{
		name:      "kubelet-client",
		authority: o.PKI.CA,
		leaf: pki.Leaf{
			CommonName:    pki.KubeletClientName,
			Organizations: []string{adminGroup},
			Client:        true,
			Lifetime:      leafLifetime,
		},
		certFile: c.kubeletClientCert,
		keyFile:  c.kubeletClient,
	}
	c.frontProxy = &leafCertificate{
		name:      "front-proxy-client",
		authority: o.PKI.FrontProxyCA,
		leaf:      pki.Leaf{CommonName: frontProxyClientName, Client: true, Lifetime: leafLifetime},
		certFile:  c.frontProxyCert,
		keyFile:   c.frontProxyKey,
	}
	c.leafs = []*leafCertificate{c.serving, kubelet, c.frontProxy}

	var errs []error
	for _, leaf := range c.leafs {
		errs = append(errs, leaf.issue(time.Now()))
	}
	errs = append(errs,
		os.WriteFile(c.caFile, o.PKI.CA.CertPEM, 0o600),
		os.WriteFile(c.frontProxyCAFile, o.PKI.FrontProxyCA.CertPEM, 0o600),
	)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("issuing certificates: %w", err)
	}
	return c, nil
}

// run renews the leafs until ctx ends.
func (c *certificates) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, leaf := range c.leafs {
		running.Go(func() { leaf.run(ctx) })
	}
	running.Wait()
}

// servingLeaf bears every name under which clients reach the API server.
func servingLeaf(o Options, addresses []net.IP) pki.Leaf {
	names := []string{
		"kubernetes",
		"kubernetes.default",
		"kubernetes.default.svc",
		"kubernetes.default.svc." + o.ClusterDomain,
		"localhost",
	}
	ips := append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, addresses...)
	for _, ip := range append(ips, o.ServerIPs...) {
		known := slices.ContainsFunc(ips, func(other net.IP) bool { return other.Equal(ip) })
		if !known {
			ips = append(ips, ip)
		}
	}
	for _, name := range o.ServerNames {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return pki.Leaf{CommonName: "kube-apiserver", DNSNames: names, IPs: ips, Server: true, Lifetime: leafLifetime}
}

// leafCertificate is one leaf and its key, as a content provider of the API
// server, as files, or both.
type leafCertificate struct {
	name              string
	authority         *pki.Authority
	leaf              pki.Leaf
	certFile, keyFile string

	mu        sync.Mutex
	cert, key []byte
	renew     time.Time
	listeners []dynamiccertificates.Listener
}

var _ dynamiccertificates.CertKeyContentProvider = (*leafCertificate)(nil)

// Name is for logs.
func (l *leafCertificate) Name() string { return l.name }

// CurrentCertKeyContent is the newest certificate and its key.
func (l *leafCertificate) CurrentCertKeyContent() (cert, key []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cert, l.key
}

// AddListener has listener told of each new certificate.
func (l *leafCertificate) AddListener(listener dynamiccertificates.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners = append(l.listeners, listener)
}

func (l *leafCertificate) run(ctx context.Context) {
	for {
		l.mu.Lock()
		wait := time.Until(l.renew)
		l.mu.Unlock()
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := l.issue(time.Now()); err != nil {
			klog.FromContext(ctx).Error(err, "Renewing a certificate failed", "certificate", l.name)
			l.mu.Lock()
			l.renew = time.Now().Add(renewRetry)
			l.mu.Unlock()
		}
	}
}

// issue replaces the certificate and tells all who use it.
func (l *leafCertificate) issue(now time.Time) error {
	cert, key, err := l.authority.Issue(l.leaf, now)
	if err != nil {
		return err
	}
	renew, err := pki.RenewalTime(cert)
	if err != nil {
		return err
	}
	if l.certFile != "" {
		if err := errors.Join(replaceFile(l.keyFile, key), replaceFile(l.certFile, cert)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.cert, l.key, l.renew = cert, key, renew
	listeners := slices.Clone(l.listeners)
	l.mu.Unlock()
	for _, listener := range listeners {
		listener.Enqueue()
	}
	return nil
}

// replaceFile never shows a reader half a file.
func replaceFile(path string, content []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
