package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	// settled is how long a namespace has been terminating before its emptiness
	// counts: by then every API server of the host refuses new objects in it.
	// The host's own controller waits 5 s before it looks for the first time.
	settled = 1500 * time.Millisecond
	// patience is how long a deletion goes on before a condition says what it
	// waits for.
	patience = 5 * time.Second
	// Watches wake a deletion up; this is for whatever they do not see.
	soon, later = time.Second, 15 * time.Second
)

// finalize takes away what a tenant has on the host. It asks nothing of the
// tenant's own control plane.
//
//	an adopted namespace       is given back, without the fence; the rest is about
//	                           one that was made for the tenant
//	delete the namespace       from here on nothing new can be made in it, so
//	                           neither the syncer nor a Deployment brings back
//	                           what is deleted next
//	delete pods, StatefulSet,  pods get a short time to stop; volumes go when
//	volumes                    the pods are gone
//	look for what is left      VirtualCluster: nobody but the syncer made
//	                           anything there, so once it is empty this
//	                           finishes at once. Else, and whenever anything is
//	                           left, the host's namespace controller does
//	namespace gone             remove the finalizer
func (r *Reconciler) finalize(ctx context.Context, s *state) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(s.tenant, api.FinalizerTenant) {
		return ctrl.Result{}, nil
	}
	waits, err := r.clearBelow(ctx, s)
	if err != nil {
		return again(0, errors.Join(err, r.writeDeleting(ctx, s, reasonContentRemaining, err.Error())))
	}
	if waits != nil {
		// The end of each of them wakes this up; s says when else.
		return again(s.requeueAfter, r.writeDeleting(ctx, s, waits.reason, waits.message))
	}
	gone, err := r.takeAway(ctx, s)
	if err != nil {
		return again(0, errors.Join(err, r.writeDeleting(ctx, s, reasonContentRemaining, err.Error())))
	}
	if gone {
		r.finished(s.tenant)
		before := s.tenant.DeepCopy()
		controllerutil.RemoveFinalizer(s.tenant, api.FinalizerTenant)
		if err := r.Client.Patch(ctx, s.tenant, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); client.IgnoreNotFound(err) != nil {
			return again(0, fmt.Errorf("remove the finalizer of tenant %q: %w", s.tenant.Name, err))
		}
		return ctrl.Result{}, nil
	}
	waiting, next := "", soon
	if s.requeueAfter > 0 {
		next = s.requeueAfter
	}
	if s.now.Sub(s.tenant.DeletionTimestamp.Time) > patience {
		next = later
		if waiting, err = r.waitsFor(ctx, s); err != nil {
			return ctrl.Result{}, err
		}
	}
	return again(next, r.writeDeleting(ctx, s, reasonContentRemaining, waiting))
}

// takeAway does the next step and says whether all is gone.
func (r *Reconciler) takeAway(ctx context.Context, s *state) (gone bool, err error) {
	// Members go on to see the tenant until it is gone.
	if err := r.deleteClusterScoped(ctx, s, api.ComponentControlPlane); err != nil {
		return false, err
	}
	gone, err = r.takeNamespaceAway(ctx, s)
	if gone && err == nil {
		err = r.deleteClusterScoped(ctx, s, api.ComponentFence)
	}
	return gone, err
}

func (r *Reconciler) takeNamespaceAway(ctx context.Context, s *state) (gone bool, err error) {
	if s.effective.Type == api.Folder {
		return true, nil
	}
	namespace := &corev1.Namespace{}
	// Read live: what the cache does not know yet must be deleted too.
	err = r.Live.Get(ctx, client.ObjectKey{Name: s.effective.Namespace}, namespace)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read namespace %q: %w", s.effective.Namespace, err)
	}
	if !owns(s.tenant, namespace) {
		return true, nil
	}
	if adopted(namespace) && namespace.DeletionTimestamp.IsZero() {
		return r.release(ctx, s, namespace)
	}
	r.drains.start(s.tenant.Name, namespace.Name)
	first := namespace.DeletionTimestamp.IsZero()
	if first {
		if err := r.deleteNamespace(ctx, namespace); err != nil {
			return false, err
		}
		if err := r.evict(ctx, s); err != nil {
			return false, err
		}
	}
	if s.effective.Type != api.VirtualCluster {
		return false, nil
	}
	// The rest is deleted while the pods stop; after that there is nothing to do
	// until they and the volumes are gone.
	if !first {
		if busy, err := r.busy(ctx, namespace.Name); busy || err != nil {
			return false, err
		}
	}
	empty, err := r.sweep(ctx, namespace.Name)
	if err != nil || first || !empty {
		return false, err
	}
	if left := settled - s.now.Sub(namespace.DeletionTimestamp.Time); left > 0 {
		s.requeueAfter = left
		return false, nil
	}
	return r.close(ctx, namespace)
}

// busy says whether a namespace still has pods or volumes.
func (r *Reconciler) busy(ctx context.Context, namespace string) (bool, error) {
	for _, kind := range []string{"PodList", "PersistentVolumeClaimList"} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
		if err := r.Live.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			return false, fmt.Errorf("list what is left in namespace %q: %w", namespace, err)
		}
		if len(list.Items) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// deleteClusterScoped removes what the tenant has outside of its namespace.
func (r *Reconciler) deleteClusterScoped(ctx context.Context, s *state, component string) error {
	for _, list := range clusterScoped() {
		if err := r.Client.List(ctx, list, client.MatchingFields{indexTenant: s.tenant.Name}, client.MatchingLabels{api.LabelComponent: component}); err != nil {
			return fmt.Errorf("list cluster-scoped objects of tenant %q: %w", s.tenant.Name, err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return fmt.Errorf("list cluster-scoped objects of tenant %q: %w", s.tenant.Name, err)
		}
		for _, item := range items {
			if object, ok := item.(client.Object); ok {
				if err := r.Applier.Delete(ctx, object); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *Reconciler) deleteNamespace(ctx context.Context, namespace *corev1.Namespace) error {
	uid := namespace.UID
	err := r.Client.Delete(ctx, namespace, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete namespace %q: %w", namespace.Name, err)
	}
	return nil
}

// evict deletes what takes longest to go. The rest is quick.
func (r *Reconciler) evict(ctx context.Context, s *state) error {
	in := client.InNamespace(s.effective.Namespace)
	var group sync.WaitGroup
	errs := make([]error, 3)
	group.Go(func() {
		errs[0] = r.Client.DeleteAllOf(ctx, &corev1.Pod{}, in, client.GracePeriodSeconds(int64(r.DeletionGrace.Seconds())))
	})
	group.Go(func() {
		errs[1] = r.Client.DeleteAllOf(ctx, &appsv1.StatefulSet{}, in, client.PropagationPolicy(metav1.DeletePropagationBackground))
	})
	group.Go(func() { errs[2] = r.Client.DeleteAllOf(ctx, &corev1.PersistentVolumeClaim{}, in) })
	group.Wait()
	// A tenant that never got its fence never got the manager's right to delete
	// in its namespace either; there is nothing in it that takes time.
	errs = slices.DeleteFunc(errs, apierrors.IsForbidden)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("empty namespace %q: %w", s.effective.Namespace, err)
	}
	return nil
}

// waitsFor says what keeps a deletion, in words of the host.
func (r *Reconciler) waitsFor(ctx context.Context, s *state) (string, error) {
	var reasons []string
	pods := &corev1.PodList{}
	if err := r.Live.List(ctx, pods, client.InNamespace(s.effective.Namespace), client.Limit(5)); err != nil {
		return "", fmt.Errorf("list the pods of tenant %q: %w", s.tenant.Name, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		text := fmt.Sprintf("pod %s has not stopped on node %q", pod.Name, pod.Spec.NodeName)
		if len(pod.Finalizers) > 0 {
			text += " and has finalizers " + strings.Join(pod.Finalizers, ", ")
		}
		reasons = append(reasons, text)
	}
	namespace := &corev1.Namespace{}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: s.effective.Namespace}, namespace); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read namespace %q: %w", s.effective.Namespace, err)
	}
	for _, c := range namespace.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			reasons = append(reasons, oneLine(c.Message))
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, "the host's namespace controller has not finished")
	}
	return fmt.Sprintf("namespace %q is not gone yet: %s", s.effective.Namespace, strings.Join(reasons, "; ")), nil
}

// writeDeleting says that the tenant goes, and what it waits for, if anything.
func (r *Reconciler) writeDeleting(ctx context.Context, s *state, reason, waiting string) error {
	s.status.Phase = api.PhaseDeleting
	s.condition(api.ConditionReady, metav1.ConditionFalse, reasonDeleting, "the tenant is being deleted")
	if waiting == "" {
		meta.RemoveStatusCondition(&s.status.Conditions, api.ConditionDeletionBlocked)
	} else {
		s.condition(api.ConditionDeletionBlocked, metav1.ConditionTrue, reason, oneLine(waiting))
	}
	return client.IgnoreNotFound(r.writeStatus(ctx, s))
}
