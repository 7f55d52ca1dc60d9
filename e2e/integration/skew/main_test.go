// Package skew_test joins a host and a tenant of different Kubernetes versions,
// with the manager on the host and the syncer between them. There is no node:
// what scheduler and kubelet would do, the tests do themselves.
//
// A process has one set of feature gates, so the host is always a process of
// its own: this test's program once more, or kube-apiserver and
// kube-controller-manager of an older release, which make skew builds:
//
//	SUBLET_SKEW_HOST    directory with those two programs; empty for the newest
//	SUBLET_SKEW_TENANT  version that the tenant emulates; 1.34 if there is none
package skew_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/component-base/cli"
	"k8s.io/klog/v2"
	kubectl "k8s.io/kubectl/pkg/cmd"

	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	serviceCIDR    = "10.96.0.0/16"
	hostVariable   = "SUBLET_SKEW_HOST"
	tenantVariable = "SUBLET_SKEW_TENANT"
	// serveVariable names the directory in which this program, started again,
	// serves as the host; with kubectlVariable it is kubectl.
	serveVariable   = "SUBLET_SKEW_SERVE"
	kubectlVariable = "SUBLET_SKEW_KUBECTL"
	// patience is for what takes milliseconds on a machine that does nothing
	// else.
	patience = time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv("SUBLET_TEST_LOG") == "" {
		klog.SetLogger(logr.Discard()) // control planes have a lot to say
	}
	if os.Getenv(kubectlVariable) != "" {
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	}
	if dir := os.Getenv(serveVariable); dir != "" {
		if err := serveHost(dir); err != nil {
			fmt.Fprintln(os.Stderr, "host:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveHost is the host with the libraries of this program, until its standard
// input ends.
func serveHost(dir string) error {
	bundle, err := pki.NewBundle("host", time.Now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name: "host", DataDir: filepath.Join(dir, "data"), Profile: controlplane.ProfileHost, PKI: bundle, ServiceCIDRs: []string{serviceCIDR},
	})
	if err != nil {
		return err
	}
	kubeconfig, err := plane.Kubeconfig("")
	if err == nil {
		err = publish(dir, kubeconfig)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	cancel()
	return errors.Join(err, plane.Wait())
}

// publish writes the kubeconfig, at once, when the host is ready.
func publish(dir string, kubeconfig []byte) error {
	part := filepath.Join(dir, "kubeconfig.part")
	if err := os.WriteFile(part, kubeconfig, 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(dir, kubeconfigFile))
}
