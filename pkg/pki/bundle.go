package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Keys of the Secret, and names of the files when it is mounted.
const (
	CACertKey           = "ca.crt"
	CAKeyKey            = "ca.key"
	FrontProxyCACertKey = "front-proxy-ca.crt"
	FrontProxyCAKeyKey  = "front-proxy-ca.key"
	ServiceAccountKey   = "sa.key"
)

// KubeletClientName is the common name of the certificate that an API server
// shows to nodes.
const KubeletClientName = "kube-apiserver-kubelet-client"

// Bundle is all that is long-lived of one control plane. Whoever holds it is
// cluster-admin there.
type Bundle struct {
	// CA issues serving and client certificates.
	CA *Authority
	// FrontProxyCA issues the certificate with which the API server speaks to
	// aggregated API servers. It is another one than CA, or every client could
	// pose as the aggregator.
	FrontProxyCA *Authority
	// ServiceAccountKeyPEM signs service account tokens.
	ServiceAccountKeyPEM []byte
}

// NewBundle makes the authorities and the signing key for the control plane of
// that name.
func NewBundle(name string, now time.Time) (*Bundle, error) {
	if name == "" {
		return nil, errors.New("making certificate authorities: a name is needed")
	}
	ca, err := NewAuthority("sublet-ca-"+name, now)
	if err != nil {
		return nil, err
	}
	frontProxy, err := NewAuthority("sublet-front-proxy-ca-"+name, now)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the service account key: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &Bundle{CA: ca, FrontProxyCA: frontProxy, ServiceAccountKeyPEM: keyPEM}, nil
}

// SecretData is the bundle as the data of a Secret.
func (b *Bundle) SecretData() map[string][]byte {
	return map[string][]byte{
		CACertKey:           b.CA.CertPEM,
		CAKeyKey:            b.CA.KeyPEM,
		FrontProxyCACertKey: b.FrontProxyCA.CertPEM,
		FrontProxyCAKeyKey:  b.FrontProxyCA.KeyPEM,
		ServiceAccountKey:   b.ServiceAccountKeyPEM,
	}
}

// BundleFromData reads what SecretData gave.
func BundleFromData(data map[string][]byte) (*Bundle, error) {
	for _, key := range secretKeys() {
		if len(data[key]) == 0 {
			return nil, fmt.Errorf("reading certificate authorities: key %q is missing; all of %q are needed", key, secretKeys())
		}
	}
	ca, err := parseAuthority(data[CACertKey], data[CAKeyKey])
	if err != nil {
		return nil, fmt.Errorf("reading %q and %q: %w", CACertKey, CAKeyKey, err)
	}
	frontProxy, err := parseAuthority(data[FrontProxyCACertKey], data[FrontProxyCAKeyKey])
	if err != nil {
		return nil, fmt.Errorf("reading %q and %q: %w", FrontProxyCACertKey, FrontProxyCAKeyKey, err)
	}
	if _, err := parseKey(data[ServiceAccountKey]); err != nil {
		return nil, fmt.Errorf("reading %q: %w", ServiceAccountKey, err)
	}
	return &Bundle{CA: ca, FrontProxyCA: frontProxy, ServiceAccountKeyPEM: data[ServiceAccountKey]}, nil
}

// LoadBundle reads the directory in which the Secret is mounted.
func LoadBundle(dir string) (*Bundle, error) {
	data := map[string][]byte{}
	for _, key := range secretKeys() {
		content, err := os.ReadFile(filepath.Join(dir, key))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading certificate authorities from %q: %q is not there; mount the Secret with all of %q", dir, key, secretKeys())
		}
		if err != nil {
			return nil, fmt.Errorf("reading certificate authorities from %q: %w", dir, err)
		}
		data[key] = content
	}
	bundle, err := BundleFromData(data)
	if err != nil {
		return nil, fmt.Errorf("in %q: %w", dir, err)
	}
	return bundle, nil
}

// Save writes the bundle into dir, which is made if need be, so that LoadBundle
// reads it again; only the owner can read it. It is for control planes that
// live outside of a cluster.
func (b *Bundle) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("saving certificate authorities: %w", err)
	}
	for key, content := range b.SecretData() {
		if err := os.WriteFile(filepath.Join(dir, key), content, 0o600); err != nil {
			return fmt.Errorf("saving certificate authorities: %w", err)
		}
	}
	return nil
}

func secretKeys() []string {
	return []string{CACertKey, CAKeyKey, FrontProxyCACertKey, FrontProxyCAKeyKey, ServiceAccountKey}
}
