package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func TestPrepareKeepsAuthorities(t *testing.T) {
	config := testConfig()
	config.Root = t.TempDir()
	config.Dir = config.Root
	var authorities []string
	for range 2 {
		if err := config.Prepare(time.Now()); err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(config.path(caFile))
		if err != nil {
			t.Fatal(err)
		}
		authorities = append(authorities, string(ca))
	}
	if authorities[0] != authorities[1] {
		t.Error("a second start made new authorities: nobody's kubeconfig would work any more")
	}
	for _, path := range []string{config.Kubeconfig(), config.path(kubeletKubeconfig), config.path(proxyKubeconfig), config.path(schedulerKubeconfig)} {
		client, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
			continue
		}
		if client.Host != config.Server() {
			t.Errorf("%s leads to %s", filepath.Base(path), client.Host)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v, %v", filepath.Base(path), info.Mode(), err)
		}
	}
	if _, err := tls.LoadX509KeyPair(config.path(kubeletCert), config.path(kubeletKey)); err != nil {
		t.Errorf("the kubelet's certificate: %v", err)
	}
}

// TestFurtherNodesHaveTheirOwnCredentials holds that a node can do what that node
// may, and no more.
func TestFurtherNodesHaveTheirOwnCredentials(t *testing.T) {
	first, further := testConfig(), furtherConfig()
	first.Root = t.TempDir()
	first.Dir, further.Root = first.Root, first.Root
	further.Dir = filepath.Join(first.Root, further.Name)
	for _, config := range []Config{first, further} {
		if err := config.Prepare(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, config := range []Config{first, further} {
		client, err := clientcmd.BuildConfigFromFlags("", config.path(kubeletKubeconfig))
		if err != nil {
			t.Fatal(err)
		}
		if client.Host != first.Server() {
			t.Errorf("the kubelet of %s looks for the API at %s", config.Name, client.Host)
		}
		block, _ := pem.Decode(client.CertData)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := cert.Subject.CommonName; got != "system:node:"+config.Name {
			t.Errorf("the kubelet of %s is %s", config.Name, got)
		}
	}
	for _, name := range []string{schedulerKubeconfig, schedulerConfig} {
		if _, err := os.Stat(further.path(name)); err == nil {
			t.Errorf("%s has %s, which it has no use for", further.Name, name)
		}
	}
}
