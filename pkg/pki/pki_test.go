package pki

import (
	"crypto"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIssue(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	authority, err := NewAuthority("test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Cert)

	cases := map[string]struct {
		reason string
		leaf   Leaf
		now    time.Time
		verify x509.VerifyOptions
		want   string
	}{
		"Server": {
			reason: "A server's certificate is good for its names.",
			leaf:   Leaf{CommonName: "api", DNSNames: []string{"kubernetes.default"}, Server: true, Lifetime: time.Hour},
			verify: x509.VerifyOptions{DNSName: "kubernetes.default", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		},
		"ServerByAddress": {
			reason: "Addresses are names, too.",
			leaf:   Leaf{CommonName: "api", IPs: []net.IP{net.IPv4(10, 96, 0, 1)}, Server: true, Lifetime: time.Hour},
			verify: x509.VerifyOptions{DNSName: "10.96.0.1", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		},
		"Client": {
			reason: "A client's certificate is good for clients.",
			leaf:   Leaf{CommonName: "ada", Organizations: []string{"sublet:admin"}, Client: true, Lifetime: time.Hour},
			verify: x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		},
		"NoUse": {
			reason: "A certificate for nothing is a mistake.",
			leaf:   Leaf{CommonName: "ada", Lifetime: time.Hour},
			want:   "server, a client",
		},
		"NoLifetime": {
			reason: "A certificate for no time is a mistake.",
			leaf:   Leaf{CommonName: "ada", Client: true},
			want:   "lifetime",
		},
		"NoName": {
			reason: "A user must have a name.",
			leaf:   Leaf{Client: true, Lifetime: time.Hour},
			want:   "common name",
		},
		"ExpiredAuthority": {
			reason: "What an expired authority signs is worth nothing, so it says so.",
			leaf:   Leaf{CommonName: "ada", Client: true, Lifetime: time.Hour},
			now:    now.AddDate(11, 0, 0),
			want:   "expired",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			at := tc.now
			if at.IsZero() {
				at = now
			}
			certPEM, keyPEM, err := authority.Issue(tc.leaf, at)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("%s\nIssue() = %v, want it to name %q", tc.reason, err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s\nIssue() = %v", tc.reason, err)
			}
			cert, err := parseCertificate(certPEM)
			if err != nil {
				t.Fatal(err)
			}
			tc.verify.Roots, tc.verify.CurrentTime = roots, at
			if _, err := cert.Verify(tc.verify); err != nil {
				t.Errorf("%s\nVerify() = %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.leaf.Organizations, cert.Subject.Organization); diff != "" {
				t.Errorf("%s\ngroups -want +got:\n%s", tc.reason, diff)
			}
			key, err := parseKey(keyPEM)
			if err != nil {
				t.Fatal(err)
			}
			public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !public.Equal(cert.PublicKey) {
				t.Errorf("%s\nthe key is not that of the certificate", tc.reason)
			}
		})
	}
}

func TestLeafNeverOutlivesItsAuthority(t *testing.T) {
	now := time.Now()
	authority, err := NewAuthority("test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, _, err := authority.Issue(Leaf{CommonName: "ada", Client: true, Lifetime: 20 * authorityLifetime}, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCertificate(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	if cert.NotAfter.After(authority.Cert.NotAfter) {
		t.Errorf("the leaf ends at %s, its authority at %s", cert.NotAfter, authority.Cert.NotAfter)
	}
}

func TestRenewalTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	authority, err := NewAuthority("test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, _, err := authority.Issue(Leaf{CommonName: "ada", Client: true, Lifetime: 90 * 24 * time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := RenewalTime(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	if want := now.Add(60 * 24 * time.Hour); got.Sub(want).Abs() > time.Hour {
		t.Errorf("RenewalTime() = %s, want about %s", got, want)
	}
	if _, err := RenewalTime([]byte("nonsense")); err == nil {
		t.Error("RenewalTime() of nonsense gave no error")
	}
}

func TestBundle(t *testing.T) {
	bundle, err := NewBundle("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := BundleFromData(bundle.SecretData())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bundle.SecretData(), again.SecretData()); diff != "" {
		t.Errorf("BundleFromData() -want +got:\n%s", diff)
	}
	dir := filepath.Join(t.TempDir(), "pki")
	if err := bundle.Save(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bundle.SecretData(), loaded.SecretData()); diff != "" {
		t.Errorf("LoadBundle() -want +got:\n%s", diff)
	}
	for name := range bundle.SecretData() {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %s", name, info.Mode())
		}
	}
}

func TestBundleFromDataRefuses(t *testing.T) {
	bundle, err := NewBundle("acme", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewBundle("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leafCert, leafKey, err := bundle.CA.Issue(Leaf{CommonName: "ada", Client: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason string
		change func(map[string][]byte)
		want   string
	}{
		"Missing": {
			reason: "What is missing is named.",
			change: func(data map[string][]byte) { delete(data, ServiceAccountKey) },
			want:   ServiceAccountKey,
		},
		"Nonsense": {
			reason: "What cannot be read is named.",
			change: func(data map[string][]byte) { data[FrontProxyCACertKey] = []byte("nonsense") },
			want:   FrontProxyCACertKey,
		},
		"KeyOfAnother": {
			reason: "A key of another certificate would sign what nobody believes.",
			change: func(data map[string][]byte) { data[CAKeyKey] = other.CA.KeyPEM },
			want:   "does not belong",
		},
		"NoAuthority": {
			reason: "A leaf cannot sign.",
			change: func(data map[string][]byte) { data[CACertKey], data[CAKeyKey] = leafCert, leafKey },
			want:   "not that of an authority",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			data := bundle.SecretData()
			tc.change(data)
			if _, err := BundleFromData(data); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s\nBundleFromData() = %v, want it to name %q", tc.reason, err, tc.want)
			}
		})
	}
	if _, err := LoadBundle(t.TempDir()); err == nil || !strings.Contains(err.Error(), CACertKey) {
		t.Errorf("LoadBundle() of an empty directory = %v, want it to name %q", err, CACertKey)
	}
}
