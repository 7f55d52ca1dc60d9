//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
	"github.com/sublet-dev/sublet/pkg/pki"
)

const (
	serviceCIDR = "10.96.0.0/16"
	patience    = time.Minute
)

// host is a cluster without nodes, in this process, for tenants to stand on.
type host struct {
	plane      *controlplane.ControlPlane
	client     kubernetes.Interface
	kubeconfig string
	stop       context.CancelFunc
}

func startHost(ctx context.Context, dir string) (*host, error) {
	bundle, err := pki.NewBundle("host", time.Now())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Name:         "host",
		DataDir:      filepath.Join(dir, "host"),
		Profile:      controlplane.ProfileHost,
		PKI:          bundle,
		ServiceCIDRs: []string{serviceCIDR},
	})
	if err != nil {
		stop()
		return nil, err
	}
	h := &host{plane: plane, stop: stop, kubeconfig: filepath.Join(dir, "host.kubeconfig")}
	config := plane.Config()
	config.QPS = -1
	if h.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	content, err := plane.Kubeconfig("")
	if err != nil {
		return nil, err
	}
	return h, os.WriteFile(h.kubeconfig, content, 0o600)
}

// prepare makes what the manager would make for a tenant, as far as its process
// looks at it.
func (h *host) prepare(ctx context.Context, namespace string) error {
	create := metav1.CreateOptions{}
	if _, err := h.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, create); err != nil {
		return fmt.Errorf("prepare the host: %w", err)
	}
	for _, name := range []string{api.ControlPlaneName, api.WorkloadServiceAccountName} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := h.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, create); err != nil {
			return fmt.Errorf("prepare the host: %w", err)
		}
	}
	return nil
}

func (h *host) close() error {
	h.stop()
	return h.plane.Wait()
}
