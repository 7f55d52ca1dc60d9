// Package localpath provisions volumes that are directories of the node, for the
// local host's default StorageClass. Unlike other provisioners of the kind it
// needs no pods of its own, as it runs on the node, so that binding is quick.
package localpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/storage/volume"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// ProvisionerName is the provisioner of the StorageClass.
const ProvisionerName = "sublet.dev/local-path"

// Options of the provisioner.
type Options struct {
	Config *rest.Config
	// NodeName is the node whose volumes it makes. Each has a provisioner.
	NodeName string
	// Dir gets one directory for each volume.
	Dir string
}

// Run provisions and deletes volumes until the context ends.
func Run(ctx context.Context, o Options) error {
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return fmt.Errorf("client for the cluster: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for volumes: %w", err)
	}
	controller.NewProvisionController(ctx, client, ProvisionerName, &provisioner{node: o.NodeName, dir: o.Dir},
		controller.LeaderElection(false),
		// A mkdir that failed is soon tried again.
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 30*time.Second)),
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
	).Run(ctx)
	return nil
}

type provisioner struct{ node, dir string }

// ShouldProvision leaves claims to the provisioner of the node that the scheduler
// chose. Those without a node are looked at, as somebody must say what is wrong.
func (p *provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	selected := claim.Annotations[volume.AnnSelectedNode]
	return selected == "" || selected == p.node
}

// ShouldDelete leaves volumes to the provisioner of the node that they are on.
func (p *provisioner) ShouldDelete(_ context.Context, pv *corev1.PersistentVolume) bool {
	return volume.CheckNodeAffinity(pv, map[string]string{corev1.LabelHostname: p.node}) == nil
}

// Provision makes the directory. Every user may write to it, since the pod's is
// not known here; who may enter is decided by who may mount.
func (p *provisioner) Provision(_ context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if o.SelectedNodeName == "" {
		return nil, controller.ProvisioningFinished, errors.New("the volume has no node yet: its StorageClass must have volumeBindingMode WaitForFirstConsumer")
	}
	if o.PVC.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, errors.New("a claim with a selector cannot get a new volume: remove spec.selector")
	}
	path := filepath.Join(p.dir, o.PVName)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make the volume's directory: %w", err)
	}
	// The umask took bits away.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("open the volume's directory to all users: %w", err)
	}
	return describe(o, path), controller.ProvisioningFinished, nil
}

// describe returns the volume that the directory is. The kernel does not hold it to its capacity.
func describe(o controller.ProvisionOptions, path string) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if o.StorageClass.ReclaimPolicy != nil {
		reclaim = *o.StorageClass.ReclaimPolicy
	}
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   o.PVC.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: reclaim,
			VolumeMode:                    &mode,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{
						Key:      corev1.LabelHostname,
						Operator: corev1.NodeSelectorOpIn,
						Values:   []string{o.SelectedNodeName},
					}},
				}},
			}},
		},
	}
}

// Delete removes the directory with everything in it.
func (p *provisioner) Delete(_ context.Context, pv *corev1.PersistentVolume) error {
	if pv.Spec.Local == nil || filepath.Dir(filepath.Clean(pv.Spec.Local.Path)) != filepath.Clean(p.dir) {
		return &controller.IgnoredError{Reason: fmt.Sprintf("%s is not in %s, so it was not made here", pv.Name, p.dir)}
	}
	if err := os.RemoveAll(pv.Spec.Local.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	return nil
}
