// Package pki makes the certificates and keys of one control plane: two
// certificate authorities and a signing key that live as long as the control
// plane does, and short-lived leafs issued from them.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// authorityLifetime is that of a control plane's certificate authorities. They
// are never rotated behind the back of those who hold a kubeconfig.
const authorityLifetime = 10 * 365 * 24 * time.Hour

// clockSkew is how far back a certificate is valid, for clients whose clock is
// behind ours.
const clockSkew = 5 * time.Minute

const (
	certificateBlock = "CERTIFICATE"
	ecKeyBlock       = "EC PRIVATE KEY"
	pkcs8KeyBlock    = "PRIVATE KEY"
)

// Authority is a certificate authority with its key.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// CertPEM and KeyPEM are what Cert and Key were read from.
	CertPEM, KeyPEM []byte
}

// Leaf is what a certificate is issued for.
type Leaf struct {
	// CommonName is the user name of a client, Organizations are its groups.
	CommonName    string
	Organizations []string
	// DNSNames and IPs are the names of a server.
	DNSNames []string
	IPs      []net.IP
	// Server and Client are the uses of the certificate; at least one is needed.
	Server, Client bool
	// Lifetime must be positive. The certificate never outlives its authority.
	Lifetime time.Duration
}

// NewAuthority makes a self-signed authority with an ECDSA P-256 key, valid for
// ten years from now.
func NewAuthority(commonName string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the key of authority %q: %w", commonName, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	keyID, err := subjectKeyID(key.Public())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-clockSkew).UTC(),
		NotAfter:              now.Add(authorityLifetime).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          keyID,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing authority %q: %w", commonName, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return parseAuthority(encodeCertificate(der), keyPEM)
}

// Issue makes a new key and a certificate for it, both PEM. The certificate is
// valid from a little before now, for the leaf's lifetime.
func (a *Authority) Issue(leaf Leaf, now time.Time) (certPEM, keyPEM []byte, err error) {
	template, err := a.template(leaf, now)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a certificate for %q: %w", leaf.CommonName, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a certificate for %q: generating its key: %w", leaf.CommonName, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a certificate for %q: %w", leaf.CommonName, err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return encodeCertificate(der), keyPEM, nil
}

func (a *Authority) template(leaf Leaf, now time.Time) (*x509.Certificate, error) {
	if leaf.CommonName == "" {
		return nil, errors.New("a common name is needed")
	}
	if leaf.Lifetime <= 0 {
		return nil, errors.New("a positive lifetime is needed")
	}
	var usages []x509.ExtKeyUsage
	if leaf.Server {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	if leaf.Client {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	if len(usages) == 0 {
		return nil, errors.New("it must be for a server, a client or both")
	}
	if !now.Before(a.Cert.NotAfter) {
		return nil, fmt.Errorf("authority %q expired at %s: make a new one and hand out new kubeconfigs",
			a.Cert.Subject.CommonName, a.Cert.NotAfter.Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(leaf.Lifetime)
	if notAfter.After(a.Cert.NotAfter) {
		notAfter = a.Cert.NotAfter
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		DNSNames:              leaf.DNSNames,
		IPAddresses:           leaf.IPs,
		NotBefore:             now.Add(-clockSkew).UTC(),
		NotAfter:              notAfter.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}, nil
}

// RenewalTime is when a certificate should be replaced: after two thirds of its
// life.
func RenewalTime(certPEM []byte) (time.Time, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return time.Time{}, err
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(life * 2 / 3), nil
}

func parseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("certificate %q is not that of an authority", cert.Subject.CommonName)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the key does not belong to the certificate %q", cert.Subject.CommonName)
	}
	return &Authority{Cert: cert, Key: key, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}

func parseCertificate(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != certificateBlock {
		return nil, errors.New("no PEM block CERTIFICATE found")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	return cert, nil
}

func parseKey(keyPEM []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("no PEM block with a private key found")
	}
	switch block.Type {
	case ecKeyBlock:
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading an EC private key: %w", err)
		}
		return key, nil
	case pkcs8KeyBlock:
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading a private key: %w", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a private key of type %T cannot sign", key)
		}
		return signer, nil
	}
	return nil, fmt.Errorf("PEM block %q is not a private key that can be read; known are %q and %q",
		block.Type, ecKeyBlock, pkcs8KeyBlock)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: ecKeyBlock, Bytes: der}), nil
}

// newSerial gives 127 random bits: unique without a store, and positive.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func subjectKeyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:20], nil
}
