package kubelet

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	certificateLifetime = 7 * 24 * time.Hour
	// maxCertificates bounds what a tenant that writes Node objects can make us
	// keep.
	maxCertificates = 256
)

// certificates issues a serving certificate for each address that is dialed,
// so that the API server may verify it as it would a kubelet's.
type certificates struct {
	ca *pki.Authority

	mutex  sync.Mutex
	issued map[string]certificate
}

type certificate struct {
	tls     *tls.Certificate
	renewal time.Time
}

func (c *certificates) forConnection(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	return c.forHost(host, time.Now())
}

func (c *certificates) forHost(host string, now time.Time) (*tls.Certificate, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if known, ok := c.issued[host]; ok && now.Before(known.renewal) {
		return known.tls, nil
	}
	leaf := pki.Leaf{CommonName: "system:node:" + host, Organizations: []string{"system:nodes"}, Server: true, Lifetime: certificateLifetime}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPs = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	certPEM, keyPEM, err := c.ca.Issue(leaf, now)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the serving certificate of %q: %w", host, err)
	}
	renewal, err := pki.RenewalTime(certPEM)
	if err != nil {
		return nil, err
	}
	if len(c.issued) >= maxCertificates {
		clear(c.issued)
	}
	c.issued[host] = certificate{tls: &pair, renewal: renewal}
	return &pair, nil
}
