package tenant

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	appsv1 "k8s.io/api/apps/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// clock is one that tests turn.
type clock struct{ now time.Time }

func newGroundwork(t *testing.T, c *clock) (groundworkPhase, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	fakeClient := fake.NewClientBuilder().WithScheme(scheme).Build()
	return groundworkPhase{
		client: fakeClient, live: fakeClient, applier: apply.New(fakeClient, api.ManagerName),
		serviceRanges: func(context.Context) ([]string, error) { return []string{"10.96.0.0/16"}, nil },
		hostAPI:       func(context.Context) ([]string, error) { return []string{"10.96.0.1:443"}, nil },
		now:           func() time.Time { return c.now },
	}, fakeClient
}

func acme() *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1234"}, Spec: api.TenantSpec{Type: api.VirtualCluster}}
}

func TestKubeconfigsAreRenewed(t *testing.T) {
	c := &clock{now: time.Now()}
	phase, fakeClient := newGroundwork(t, c)
	secret := func(name string) *corev1.Secret {
		t.Helper()
		s := &corev1.Secret{}
		if err := fakeClient.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: name}, s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	run := func() *state {
		t.Helper()
		s := newState(acme(), c.now)
		if err := phase.Run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if s.problem != nil {
			t.Fatal(s.problem)
		}
		return s
	}
	run()
	keys := secret(api.PKISecretName)
	name := virtualcluster.KubeconfigSecretName(api.RoleEdit)
	first := secret(name)
	config, err := clientcmd.Load(first.Data[api.KubeconfigSecretKey])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := config.Clusters[config.Contexts[config.CurrentContext].Cluster].Server, "https://sublet.acme.svc:443"; got != want {
		t.Errorf("server is %s", got)
	}
	block, _ := pem.Decode(config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo].ClientCertificateData)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if groups := cert.Subject.Organization; len(groups) != 1 || groups[0] != api.GroupEdit {
		t.Errorf("groups are %v", groups)
	}

	// Half of its life on nothing happens, but the next look is planned.
	c.now = c.now.Add(clientLifetime / 2)
	s := run()
	if !bytes.Equal(secret(name).Data[api.KubeconfigSecretKey], first.Data[api.KubeconfigSecretKey]) {
		t.Error("it was renewed too early")
	}
	if s.requeueAfter <= 0 || s.requeueAfter > clientLifetime/5 {
		t.Errorf("the next look is in %s", s.requeueAfter)
	}
	c.now = c.now.Add(s.requeueAfter)
	run()
	if bytes.Equal(secret(name).Data[api.KubeconfigSecretKey], first.Data[api.KubeconfigSecretKey]) {
		t.Error("it was not renewed")
	}
	if again := secret(api.PKISecretName); again.ResourceVersion != keys.ResourceVersion {
		t.Error("the keys were written again")
	}
}

func TestLostKeys(t *testing.T) {
	c := &clock{now: time.Now()}
	phase, fakeClient := newGroundwork(t, c)
	s := newState(acme(), c.now)
	s.statefulSet = &appsv1.StatefulSet{}
	if err := phase.Run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.problem == nil || s.problem.reason != reasonKeysLost {
		t.Errorf("got %v", s.problem)
	}
	err := fakeClient.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: api.PKISecretName}, &corev1.Secret{})
	if client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("other keys were made for a control plane that has data: %v", err)
	}
}

func TestBrokenKeys(t *testing.T) {
	c := &clock{now: time.Now()}
	phase, fakeClient := newGroundwork(t, c)
	s := newState(acme(), c.now)
	broken := virtualcluster.PKISecret(s.effective, map[string][]byte{"ca.crt": []byte("nonsense")})
	if err := fakeClient.Create(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	if err := phase.Run(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.problem == nil || s.problem.reason != reasonKeysLost {
		t.Errorf("got %v", s.problem)
	}
}
