package node

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func TestPrepareKeepsAuthorities(t *testing.T) {
	config := testConfig()
	config.Dir = t.TempDir()
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
