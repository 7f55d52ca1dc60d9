package syncer_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// testIngresses: an Ingress of a class of the host is served there, one of the
// tenant's own is not, and what may not be claimed is told.
func (p *planes) testIngresses(t *testing.T) {
	ctx := t.Context()
	if _, err := p.host.NetworkingV1().IngressClasses().Create(ctx, &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: "public", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: "example.com/public"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the class is shown", func(ctx context.Context) (*networkingv1.IngressClass, error) {
		return p.virtual.NetworkingV1().IngressClasses().Get(ctx, "public", metav1.GetOptions{})
	}, nil)
	if _, err := p.virtual.NetworkingV1().IngressClasses().Create(ctx, &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/mine"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	virtual, onHost := p.virtual.NetworkingV1().Ingresses(space), p.host.NetworkingV1().Ingresses(hostNamespace)
	hostIngress := func(name string) func(context.Context) (*networkingv1.Ingress, error) {
		return func(ctx context.Context) (*networkingv1.Ingress, error) {
			return onHost.Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
		}
	}
	prefix := networkingv1.PathTypePrefix
	ingress := func(name, host string) *networkingv1.Ingress {
		return &networkingv1.Ingress{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: networkingv1.IngressSpec{
				TLS: []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: name + ".tls"}},
				Rules: []networkingv1.IngressRule{{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
						Service: &networkingv1.IngressServiceBackend{Name: "absent", Port: networkingv1.ServiceBackendPort{Number: 80}},
					}}},
				}}}},
			},
		}
	}
	created := func(ingress *networkingv1.Ingress) {
		t.Helper()
		if _, err := virtual.Create(ctx, ingress, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	// What it refers to comes later, or never.
	created(ingress("shop", "shop.example.com"))
	host := waitFor(t, "host Ingress", hostIngress("shop"), nil)
	if class := host.Spec.IngressClassName; class == nil || *class != "public" {
		t.Errorf("the class is %v, not the default", class)
	}
	if name := host.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name; name != translate.HostName(space, "absent") {
		t.Errorf("the backend is %q", name)
	}
	if _, err := p.virtual.CoreV1().Secrets(space).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "shop.tls"}, Data: map[string][]byte{"a": []byte("b")},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostSecret := func(ctx context.Context) (*corev1.Secret, error) {
		return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, host.Spec.TLS[0].SecretName, metav1.GetOptions{})
	}
	waitFor(t, "the certificate follows", hostSecret, nil)

	host.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "198.51.100.7"}}
	if _, err := onHost.UpdateStatus(ctx, host, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the address comes back", func(ctx context.Context) (*networkingv1.Ingress, error) {
		return virtual.Get(ctx, "shop", metav1.GetOptions{})
	}, func(in *networkingv1.Ingress) bool {
		return len(in.Status.LoadBalancer.Ingress) == 1 && in.Status.LoadBalancer.Ingress[0].IP == "198.51.100.7"
	})
	p.quiet(t)

	// A change that is refused leaves what there is.
	if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/server-snippet":"return 200;"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	p.hears(t, "Ingress", "shop", "server-snippet")
	if found, err := hostIngress("shop")(ctx); err != nil || found.Annotations["nginx.ingress.kubernetes.io/server-snippet"] != "" {
		t.Errorf("after a change that is refused: %v, %v", found.Annotations, err)
	}
	if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"metadata":{"annotations":{"nginx.ingress.kubernetes.io/server-snippet":null}},"spec":{"rules":[{"host":"b.example.com"}],"tls":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a change that is allowed follows", hostIngress("shop"), func(in *networkingv1.Ingress) bool {
		return in.Spec.Rules[0].Host == "b.example.com" && len(in.Spec.TLS) == 0
	})

	// Behind our back.
	changed, err := hostIngress("shop")(ctx)
	if err != nil {
		t.Fatal(err)
	}
	changed.Spec.Rules[0].Host = "stolen.example.com"
	if _, err := onHost.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host Ingress is as it was", hostIngress("shop"), func(in *networkingv1.Ingress) bool { return in.Spec.Rules[0].Host == "b.example.com" })
	if err := onHost.Delete(ctx, changed.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host Ingress is made again", hostIngress("shop"), func(in *networkingv1.Ingress) bool { return in.UID != changed.UID })

	// Hosts of others.
	created(ingress("greedy", "shop.example.org"))
	p.hears(t, "Ingress", "greedy", "shop.example.org")
	if _, err := hostIngress("greedy")(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("an Ingress for somebody else's host is on the host (%v)", err)
	}

	// A class of the tenant's own: not there, and away when it becomes one.
	own, mine := ingress("own", "anything.example.org"), "mine"
	own.Spec.IngressClassName = &mine
	created(own)
	if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"spec":{"ingressClassName":"mine"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host Ingress of a class of the tenant's own", hostIngress("shop"))
	if _, err := hostIngress("own")(ctx); !apierrors.IsNotFound(err) {
		t.Errorf("an Ingress of the tenant's own class is on the host (%v)", err)
	}
	for _, name := range []string{"shop", "greedy", "own"} {
		if err := virtual.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}
