package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// sweepers is how many kinds are looked at at a time.
const sweepers = 16

// sweep deletes everything of every kind that the host serves in a terminating
// namespace, but the role bindings, and says whether nothing is left. Where it
// cannot be sure it says no, and the host's namespace controller does the rest.
func (r *Reconciler) sweep(ctx context.Context, namespace string) (empty bool, err error) {
	resources, err := r.namespacedResources()
	if err != nil {
		// A group that does not answer may hold something.
		log.FromContext(ctx).V(1).Info("Left to the namespace controller: not every API group of the host answers", "namespace", namespace, "error", err.Error())
		return false, nil
	}
	left := make([]int, len(resources))
	errs := make([]error, len(resources))
	slots := make(chan struct{}, sweepers)
	var group sync.WaitGroup
	for i, resource := range resources {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			left[i], errs[i] = r.clear(ctx, resource, namespace)
		})
	}
	group.Wait()
	if slices.ContainsFunc(errs, apierrors.IsForbidden) {
		// The namespace controller was here first and took away the manager's
		// right to look; or there never was a fence to give it.
		return false, nil
	}
	if err := errors.Join(errs...); err != nil {
		return false, fmt.Errorf("empty namespace %q: %w", namespace, err)
	}
	return !slices.ContainsFunc(left, func(n int) bool { return n > 0 }), nil
}

// close deletes the role bindings, which gave the manager the right to sweep,
// and takes the host's finalizer off the empty namespace.
func (r *Reconciler) close(ctx context.Context, namespace *corev1.Namespace) (gone bool, err error) {
	in := client.InNamespace(namespace.Name)
	if err := r.Client.DeleteAllOf(ctx, &rbacv1.RoleBinding{}, in); err != nil {
		return false, fmt.Errorf("delete the role bindings of namespace %q: %w", namespace.Name, err)
	}
	bindings := &rbacv1.RoleBindingList{}
	if err := r.Live.List(ctx, bindings, in); err != nil {
		return false, fmt.Errorf("list the role bindings of namespace %q: %w", namespace.Name, err)
	}
	if len(bindings.Items) > 0 {
		return false, nil
	}
	namespace.Spec.Finalizers = slices.DeleteFunc(namespace.Spec.Finalizers, func(f corev1.FinalizerName) bool {
		return f == corev1.FinalizerKubernetes
	})
	err = r.Client.SubResource("finalize").Update(ctx, namespace)
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case apierrors.IsConflict(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("finalize namespace %q: %w", namespace.Name, err)
	}
	// Finalizers in its metadata are others' affair.
	return len(namespace.Spec.Finalizers) == 0 && len(namespace.Finalizers) == 0, nil
}

// resource is one kind that a namespace may hold.
type resource struct {
	schema.GroupVersionResource
	// collection says that all of it can be deleted by one request.
	collection bool
}

// namespacedResources are all that the host serves now and that can be deleted,
// without the role bindings, which go last.
func (r *Reconciler) namespacedResources() ([]resource, error) {
	lists, err := r.Discovery.ServerPreferredNamespacedResources()
	if err != nil {
		return nil, fmt.Errorf("find the host's kinds: %w", err)
	}
	var resources []resource
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("find the host's kinds: %w", err)
		}
		for _, kind := range list.APIResources {
			gvr := version.WithResource(kind.Name)
			if gvr.GroupResource() == (schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}) {
				continue
			}
			resources = append(resources, resource{gvr, slices.Contains(kind.Verbs, "deletecollection")})
		}
	}
	return resources, nil
}

// clear deletes all objects of a kind and says how many are left then.
func (r *Reconciler) clear(ctx context.Context, kind resource, namespace string) (int, error) {
	objects := r.Metadata.Resource(kind.GroupVersionResource).Namespace(namespace)
	list, err := objects.List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fresh := slices.ContainsFunc(list.Items, func(o metav1.PartialObjectMetadata) bool { return o.DeletionTimestamp.IsZero() })
	if !fresh {
		return len(list.Items), nil
	}
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	if kind.GroupVersionResource == corev1.SchemeGroupVersion.WithResource("pods") {
		grace := int64(r.DeletionGrace.Seconds())
		options.GracePeriodSeconds = &grace
	}
	if kind.collection {
		err = objects.DeleteCollection(ctx, options, metav1.ListOptions{})
	} else {
		for i := range list.Items {
			err = errors.Join(err, client.IgnoreNotFound(objects.Delete(ctx, list.Items[i].Name, options)))
		}
	}
	if err != nil {
		return 0, err
	}
	list, err = objects.List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	return len(list.Items), nil
}
