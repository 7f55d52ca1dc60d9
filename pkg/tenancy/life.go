package tenancy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// ExpiresAt is when a tenant is to be deleted by itself; nil for never.
func ExpiresAt(t *api.Tenant) *metav1.Time {
	at := t.Spec.ExpiresAt.DeepCopy()
	if ttl := t.Spec.TTL; ttl != nil {
		end := metav1.NewTime(t.CreationTimestamp.Add(ttl.Duration))
		if at == nil || end.Before(at) {
			at = &end
		}
	}
	return at
}

// DeletionPolicyOf says what becomes of the tenants below one that is being
// deleted: what it says itself, or else what brought it there, a Cascade from
// further up. Lookup is as in PathTo.
func DeletionPolicyOf(t *api.Tenant, lookup func(name string) (*api.Tenant, error)) (api.DeletionPolicy, error) {
	seen := map[string]bool{}
	for !seen[t.Name] {
		seen[t.Name] = true
		if t.Spec.DeletionPolicy != "" {
			return t.Spec.DeletionPolicy, nil
		}
		parent, err := lookup(Parent(t))
		if err != nil {
			return "", err
		}
		if parent == nil || parent.DeletionTimestamp.IsZero() {
			break
		}
		if parent.Spec.DeletionPolicy != "" && parent.Spec.DeletionPolicy != api.DeletionCascade {
			break
		}
		t = parent
	}
	return api.DeletionRefuse, nil
}
