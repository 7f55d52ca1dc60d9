package controlplane

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	fwk "k8s.io/kube-scheduler/framework"
	corehelper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

// volumeNodesName is that of the scheduler plugin below.
const volumeNodesName = "SubletVolumeNodes"

// volumeNodes stands in a tenant's scheduler for VolumeBinding, which would bind
// claims to volumes: that is the host's business.
//
//	claim is bound                   the nodes that reach its volume
//	claim waits for its first pod    any node that the class allows; the host
//	                                 makes the volume there, as the host pod may
//	                                 go nowhere else
//	claim is not bound yet           none: the pod waits for the host
//
// A claim that waits for its first pod and has one already stays with that one's
// node. What the host cannot provide on the node chosen, it says by an event on
// the pod, which stays pending.
type volumeNodes struct {
	handle  fwk.Handle
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

var (
	_ fwk.PreFilterPlugin   = &volumeNodes{}
	_ fwk.FilterPlugin      = &volumeNodes{}
	_ fwk.EnqueueExtensions = &volumeNodes{}
)

func newVolumeNodes(_ context.Context, _ runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
	core, storage := handle.SharedInformerFactory().Core().V1(), handle.SharedInformerFactory().Storage().V1()
	return &volumeNodes{
		handle:  handle,
		claims:  core.PersistentVolumeClaims().Lister(),
		volumes: core.PersistentVolumes().Lister(),
		classes: storage.StorageClasses().Lister(),
	}, nil
}

// Name of the plugin.
func (*volumeNodes) Name() string { return volumeNodesName }

// EventsToRegister are those that may make a pod schedulable that was not.
func (*volumeNodes) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	var all []fwk.ClusterEventWithHint
	for _, event := range []fwk.ClusterEvent{
		{Resource: fwk.PersistentVolumeClaim, ActionType: fwk.Add | fwk.Update},
		{Resource: fwk.PersistentVolume, ActionType: fwk.Add | fwk.Update},
		{Resource: fwk.StorageClass, ActionType: fwk.Add | fwk.Update},
		{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint},
	} {
		all = append(all, fwk.ClusterEventWithHint{Event: event})
	}
	return all, nil
}

// podVolumes is what a pod's claims ask of a node.
type podVolumes struct {
	volumes []*corev1.PersistentVolume
	classes []*storagev1.StorageClass
}

// Clone returns the same: it is never changed.
func (v *podVolumes) Clone() fwk.StateData { return v }

// PreFilter looks up the claims of a pod.
func (p *volumeNodes) PreFilter(_ context.Context, state fwk.CycleState, pod *corev1.Pod, nodes []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	needs := &podVolumes{}
	var only *fwk.PreFilterResult
	found := false
	for i := range pod.Spec.Volumes {
		name, ephemeral := claimOf(pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		found = true
		claim, err := p.claim(pod, name, ephemeral)
		if err != nil {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
		}
		if claim.Status.Phase == corev1.ClaimBound && claim.Spec.VolumeName != "" {
			volume, err := p.volumes.Get(claim.Spec.VolumeName)
			if errors.IsNotFound(err) {
				return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
			}
			if err != nil {
				return nil, fwk.AsStatus(err)
			}
			needs.volumes = append(needs.volumes, volume)
			continue
		}
		class, err := p.delayed(claim)
		if err != nil {
			return nil, fwk.AsStatus(err)
		}
		if class == nil {
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "pod has unbound immediate PersistentVolumeClaims")
		}
		needs.classes = append(needs.classes, class)
		if taken := usedOn(nodes, claim); len(taken) > 0 {
			only = only.Merge(&fwk.PreFilterResult{NodeNames: taken})
		}
	}
	if !found {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(volumeNodesName, needs)
	return only, nil
}

// PreFilterExtensions are none.
func (*volumeNodes) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter tells whether a node has what PreFilter found.
func (*volumeNodes) Filter(_ context.Context, state fwk.CycleState, _ *corev1.Pod, info fwk.NodeInfo) *fwk.Status {
	data, err := state.Read(volumeNodesName)
	if err != nil {
		return fwk.AsStatus(err)
	}
	needs, ok := data.(*podVolumes)
	if !ok {
		return fwk.AsStatus(fmt.Errorf("state of %s is a %T", volumeNodesName, data))
	}
	node := info.Node()
	for _, volume := range needs.volumes {
		if storagehelpers.CheckNodeAffinity(volume, node.Labels) != nil {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) had volume node affinity conflict")
		}
	}
	for _, class := range needs.classes {
		if !corehelper.MatchTopologySelectorTerms(class.AllowedTopologies, labels.Set(node.Labels)) {
			return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) didn't match the topologies that the storage class allows")
		}
	}
	return nil
}

// claimOf names the claim behind a volume, if there is one, and tells whether it
// is made for the pod.
func claimOf(pod *corev1.Pod, volume *corev1.Volume) (name string, ephemeral bool) {
	switch {
	case volume.PersistentVolumeClaim != nil:
		return volume.PersistentVolumeClaim.ClaimName, false
	case volume.Ephemeral != nil:
		return pod.Name + "-" + volume.Name, true
	}
	return "", false
}

// claim returns a claim that the pod may use.
func (p *volumeNodes) claim(pod *corev1.Pod, name string, ephemeral bool) (*corev1.PersistentVolumeClaim, error) {
	claim, err := p.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
	switch {
	case errors.IsNotFound(err) && ephemeral:
		return nil, fmt.Errorf("waiting for the persistentvolumeclaim %q to be created for the pod", name)
	case err != nil:
		return nil, err
	case claim.Status.Phase == corev1.ClaimLost:
		return nil, fmt.Errorf("persistentvolumeclaim %q has lost its volume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", name)
	case ephemeral:
		for _, owner := range claim.OwnerReferences {
			if owner.Controller != nil && *owner.Controller && owner.UID == pod.UID {
				return claim, nil
			}
		}
		return nil, fmt.Errorf("persistentvolumeclaim %q was not created for the pod", name)
	}
	return claim, nil
}

// delayed returns the class of a claim if it waits for its first pod.
func (p *volumeNodes) delayed(claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	name := storagehelpers.GetPersistentVolumeClaimClass(claim)
	if name == "" {
		return nil, nil
	}
	class, err := p.classes.Get(name)
	if errors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if mode := class.VolumeBindingMode; mode == nil || *mode != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil, nil
	}
	return class, nil
}

// usedOn are the nodes on which pods use a claim.
func usedOn(nodes []fwk.NodeInfo, claim *corev1.PersistentVolumeClaim) sets.Set[string] {
	key := claim.Namespace + "/" + claim.Name
	on := sets.New[string]()
	for _, node := range nodes {
		if node.GetPVCRefCounts()[key] > 0 {
			on.Insert(node.Node().Name)
		}
	}
	return on
}
