package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// controlPlanePhase runs the control plane. A control plane that runs already
// is left as it is when the spec is invalid.
type controlPlanePhase struct {
	applier *apply.Applier
	image   string
}

func (controlPlanePhase) Condition() string { return api.ConditionControlPlaneReady }

func (p controlPlanePhase) Run(ctx context.Context, s *state) error {
	if errs := invalid(s.tenant); len(errs) > 0 {
		return &blocked{reasonInvalidSpec, sentence(errs)}
	}
	if s.problem != nil {
		return s.problem
	}
	image := s.effective.VirtualCluster.Image
	if image == "" {
		image = p.image
	}
	set, err := virtualcluster.StatefulSet(s.effective, virtualcluster.Spec{
		Image: image, Config: s.config, Storage: s.storage,
	})
	if err != nil {
		return err
	}
	if err := p.applier.Apply(ctx, set); err != nil {
		return err
	}
	s.statefulSet = set
	s.status.VirtualCluster = &api.VirtualClusterStatus{
		Version:  s.effective.VirtualCluster.Version,
		Endpoint: virtualcluster.Endpoint(s.effective.Namespace),
	}
	return nil
}

// gather reads what there is of a control plane, and decides where its data
// live: both the fence and the StatefulSet depend on it.
func (r *Reconciler) gather(ctx context.Context, s *state) error {
	if s.effective.Type != api.VirtualCluster {
		return nil
	}
	set := &appsv1.StatefulSet{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.effective.Namespace, Name: api.ControlPlaneName}, set)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read the control plane of tenant %q: %w", s.effective.Name, err)
	}
	if err == nil && set.Labels[api.LabelTenant] == s.effective.Name {
		s.statefulSet = set
		s.storage = storageOf(set)
		s.noteStorage()
		return nil
	}
	classes := &storagev1.StorageClassList{}
	if err := r.Client.List(ctx, classes); err != nil {
		return fmt.Errorf("list the host's storage classes: %w", err)
	}
	s.storage, s.problem = decideStorage(s.effective, classes.Items)
	return nil
}

// storageOf is where a control plane that there is keeps its data.
func storageOf(set *appsv1.StatefulSet) virtualcluster.Storage {
	if len(set.Spec.VolumeClaimTemplates) > 0 {
		claim := set.Spec.VolumeClaimTemplates[0].Spec
		return virtualcluster.Storage{
			Type:  api.StoragePVC,
			Class: claim.StorageClassName,
			Size:  claim.Resources.Requests[corev1.ResourceStorage],
		}
	}
	storage := virtualcluster.Storage{Type: api.StorageEmptyDir}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		if volume.Name == virtualcluster.DataVolume && volume.EmptyDir != nil && volume.EmptyDir.SizeLimit != nil {
			storage.Size = *volume.EmptyDir.SizeLimit
		}
	}
	return storage
}

// noteStorage says so when the spec asks for other storage than there is: data
// does not move by itself.
func (s *state) noteStorage() {
	spec := s.tenant.Spec.VirtualCluster
	if spec == nil || spec.Storage == nil {
		return
	}
	want := s.effective.VirtualCluster
	differs := want.StorageType != "" && want.StorageType != s.storage.Type ||
		spec.Storage.Size != nil && want.StorageSize.Cmp(s.storage.Size) != 0 ||
		want.StorageClass != nil && (s.storage.Class == nil || *want.StorageClass != *s.storage.Class)
	if differs {
		s.notApplied = append(s.notApplied,
			"spec.virtualCluster.storage differs from where the data are, and they do not move: create another tenant for other storage")
	}
}

// defaultClassAnnotation marks a host's default StorageClass
// (k8s.io/kubernetes, pkg/volume/util).
const defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"

// decideStorage says where a new control plane keeps its data. It never falls
// back to an EmptyDir by itself: that would lose data nobody agreed to lose.
func decideStorage(e tenancy.Effective, classes []storagev1.StorageClass) (virtualcluster.Storage, *blocked) {
	want := e.VirtualCluster
	storage := virtualcluster.Storage{Type: want.StorageType, Class: want.StorageClass, Size: want.StorageSize}
	if storage.Type == api.StorageEmptyDir {
		return storage, nil
	}
	storage.Type = api.StoragePVC
	if allowed := e.Limits.StorageClasses; want.StorageClass != nil && len(allowed) > 0 && !slices.Contains(allowed, *want.StorageClass) {
		return virtualcluster.Storage{}, &blocked{reasonNoStorageClass, fmt.Sprintf(
			"StorageClass %q of the control plane's volume is not among those that the limits of the tenant allow: %s",
			*want.StorageClass, strings.Join(allowed, ", "))}
	}
	names, hasDefault := make([]string, 0, len(classes)), false
	for i := range classes {
		names = append(names, classes[i].Name)
		hasDefault = hasDefault || classes[i].Annotations[defaultClassAnnotation] == "true"
		if want.StorageClass != nil && classes[i].Name == *want.StorageClass {
			return storage, nil
		}
	}
	if want.StorageClass == nil && hasDefault {
		return storage, nil
	}
	problem := "the host has no default StorageClass"
	if want.StorageClass != nil {
		problem = fmt.Sprintf("the host has no StorageClass %q", *want.StorageClass)
	}
	choice := "there is none at all"
	if len(names) > 0 {
		choice = "there is " + strings.Join(names, ", ")
	}
	return virtualcluster.Storage{}, &blocked{reasonNoStorageClass, fmt.Sprintf(
		"%s for the control plane's volume (%s): name one with `sublet create %s --storage-class NAME`, or keep the data with the pod, to be lost with it, with `sublet create %s --ephemeral`",
		problem, choice, e.Name, e.Name)}
}

// observe tells how the control plane is, whatever became of the phases.
func (r *Reconciler) observe(ctx context.Context, s *state) error {
	if s.effective.Type != api.VirtualCluster || s.statefulSet == nil {
		return nil
	}
	seen := seen{namespace: s.effective.Namespace}
	pod := &corev1.Pod{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: seen.namespace, Name: api.ControlPlanePod}, pod); {
	case err == nil:
		seen.pod = pod
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read the control plane's pod of tenant %q: %w", s.effective.Name, err)
	}
	claim := &corev1.PersistentVolumeClaim{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: seen.namespace, Name: virtualcluster.ClaimName()}, claim); {
	case err == nil:
		seen.claim = claim
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read the control plane's volume of tenant %q: %w", s.effective.Name, err)
	}
	if seen.pod == nil {
		refusals := &corev1.EventList{}
		if err := r.Client.List(ctx, refusals, client.InNamespace(seen.namespace)); err != nil {
			return fmt.Errorf("list the events of tenant %q: %w", s.effective.Name, err)
		}
		seen.refusal = latest(refusals.Items, s.statefulSet)
	}
	s.applyObservation(look(seen))
	return nil
}

// applyObservation joins what is seen with what the spec asks for in vain: a
// control plane that runs is ready, even if a change to it is not possible.
func (s *state) applyObservation(o observation) {
	problem := s.problem
	if errs := invalid(s.tenant); len(errs) > 0 {
		problem = &blocked{reasonInvalidSpec, sentence(errs)}
	}
	if problem != nil && o.ready {
		s.notApplied = append(s.notApplied, problem.message)
	}
	if problem != nil && !o.ready {
		s.block(api.ConditionControlPlaneReady, problem)
		return
	}
	s.condition(api.ConditionControlPlaneReady, o.status(), o.reason, o.message)
}
