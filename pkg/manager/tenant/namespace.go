package tenant

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// namespacePhase makes the host namespace and keeps its labels. It takes over a
// namespace that it did not make only where that was given to the tenant.
type namespacePhase struct {
	client          client.Client
	live            client.Reader
	applier         *apply.Applier
	systemNamespace string
	host            func(context.Context) (isolation.Host, error)
}

func (namespacePhase) Condition() string { return api.ConditionNamespaceReady }

func (p namespacePhase) Run(ctx context.Context, s *state) error {
	if err := tenancy.ValidateNamespace(s.tenant, p.systemNamespace); err != nil {
		return &blocked{reasonNamespaceReserved, err.Error()}
	}
	host, err := p.host(ctx)
	if err != nil {
		return err
	}
	want := isolation.Namespace(s.effective, host)
	current, made, err := p.ensure(ctx, want)
	if err != nil {
		return err
	}
	if !owns(s.tenant, current) && offered(s.tenant, current) {
		if current, err = p.adopt(ctx, s, current); err != nil {
			return err
		}
	}
	if !owns(s.tenant, current) {
		return taken(s.effective, current)
	}
	if !current.DeletionTimestamp.IsZero() {
		return &blocked{reasonNamespaceLeaving, fmt.Sprintf(
			"namespace %q is being deleted; it is made anew, empty, when it is gone", current.Name)}
	}
	if !made {
		// The UID makes the server refuse should it be another namespace by now.
		want.UID = current.UID
		if err := p.applier.Apply(ctx, want); err != nil {
			return err
		}
	}
	if adopted(current) {
		if err := p.begin(ctx, s, current); err != nil {
			return err
		}
	}
	s.newNamespace = made
	s.status.Namespace = want.Name
	s.condition(api.ConditionNamespaceReady, metav1.ConditionTrue, reasonApplied,
		fmt.Sprintf("namespace %q is the tenant's", want.Name))
	return nil
}

// ensure finds the namespace or makes it. Only a create can tell which of the
// two happened, so the first write is none by server-side apply.
func (p namespacePhase) ensure(ctx context.Context, want *corev1.Namespace) (current *corev1.Namespace, made bool, err error) {
	current = &corev1.Namespace{}
	err = p.client.Get(ctx, client.ObjectKeyFromObject(want), current)
	if err == nil {
		return current, false, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, false, fmt.Errorf("read namespace %q: %w", want.Name, err)
	}
	created := want.DeepCopy()
	err = p.client.Create(ctx, created, client.FieldOwner(api.ManagerName))
	if err == nil {
		return created, true, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, false, fmt.Errorf("create namespace %q: %w", want.Name, err)
	}
	// The cache is behind.
	if err := p.live.Get(ctx, client.ObjectKeyFromObject(want), current); err != nil {
		return nil, false, fmt.Errorf("read namespace %q: %w", want.Name, err)
	}
	return current, false, nil
}

// owns says whether a namespace was made for this very Tenant.
func owns(tenant *api.Tenant, namespace *corev1.Namespace) bool {
	return namespace.Labels[api.LabelTenant] == tenant.Name &&
		namespace.Annotations[api.AnnotationTenantUID] == string(tenant.UID)
}

func taken(e tenancy.Effective, namespace *corev1.Namespace) *blocked {
	owner, remedy := "it was not made for this tenant", "Delete that namespace"
	switch other := namespace.Labels[api.LabelTenant]; {
	case other == e.Name:
		owner = "it belongs to an earlier tenant of this name"
	case other != "":
		owner = fmt.Sprintf("it belongs to tenant %q", other)
	case e.Type == api.Namespace:
		remedy = fmt.Sprintf("Whoever may change that namespace can give it to the tenant (kubectl annotate namespace %s %s=%s); or delete it", namespace.Name, api.AnnotationGiveTo, e.Name)
	}
	return &blocked{reasonNamespaceTaken, fmt.Sprintf(
		"namespace %q exists already and is not adopted: %s. %s, or delete this tenant and create it with another name or another spec.namespace",
		namespace.Name, owner, remedy)}
}
