package tenant

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// noticeTime is how long before its end a tenant is announced to go, at most;
// one that lives shortly, at the last tenth of its life.
const noticeTime = time.Hour

// expire announces when a tenant is deleted by itself, and deletes it when it is
// time. It reports whether it did. Nothing is deleted without a way to the root.
func (r *Reconciler) expire(ctx context.Context, s *state) (bool, error) {
	at := tenancy.ExpiresAt(s.tenant)
	s.status.ExpiresAt = at
	if at == nil {
		meta.RemoveStatusCondition(&s.status.Conditions, api.ConditionExpires)
		return false, nil
	}
	left := at.Sub(s.now)
	notice := min(noticeTime, at.Sub(s.tenant.CreationTimestamp.Time)/10)
	reason, message := reasonScheduled, fmt.Sprintf("the tenant is deleted at %s", at.UTC().Format(time.RFC3339))
	switch {
	case left > notice:
		s.wakeIn(left - notice)
	case left > 0:
		reason = reasonExpiring
		s.wakeIn(left)
	case !s.placed:
		reason, message = reasonExpired, message+", but nothing is deleted while it has no place in the tree"
	default:
		reason, message = reasonExpired, fmt.Sprintf("the time of the tenant was over at %s", at.UTC().Format(time.RFC3339))
	}
	before := meta.FindStatusCondition(s.status.Conditions, api.ConditionExpires)
	if reason == reasonExpiring && (before == nil || before.Reason != reason) {
		r.event(s, corev1.EventTypeWarning, reason, message)
	}
	s.condition(api.ConditionExpires, metav1.ConditionTrue, reason, message)
	if left > 0 || !s.placed {
		return false, nil
	}
	// Whoever prolonged it a moment ago wins.
	uid, version := s.tenant.UID, s.tenant.ResourceVersion
	if err := r.Client.Delete(ctx, s.tenant.DeepCopy(), client.Preconditions{UID: &uid, ResourceVersion: &version}); err != nil {
		return false, fmt.Errorf("delete tenant %q, whose time is over: %w", s.tenant.Name, err)
	}
	r.event(s, corev1.EventTypeNormal, reason, message)
	return true, nil
}
