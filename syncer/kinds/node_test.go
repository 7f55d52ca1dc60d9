package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestNodeFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         corev1.Node{},
			translated: []string{"ObjectMeta", "Spec", "Status"},
			dropped:    []string{"TypeMeta"},
		},
		{
			of:      corev1.NodeSpec{},
			copied:  []string{"Unschedulable"},
			dropped: []string{"PodCIDR", "PodCIDRs", "ProviderID", "Taints", "ConfigSource", "DoNotUseExternalID"},
		},
		{
			of:         corev1.NodeStatus{},
			copied:     []string{"Capacity", "Allocatable", "Conditions", "DaemonEndpoints", "RuntimeHandlers", "Features", "DeclaredFeatures"},
			translated: []string{"Addresses", "NodeInfo"},
			dropped:    []string{"Phase", "Images", "VolumesInUse", "VolumesAttached", "Config"},
		},
		{
			of:      corev1.NodeSystemInfo{},
			copied:  []string{"KernelVersion", "OSImage", "ContainerRuntimeVersion", "KubeletVersion", "KubeProxyVersion", "OperatingSystem", "Architecture", "Swap"},
			dropped: []string{"MachineID", "SystemUUID", "BootID"},
		},
	})
}

func FuzzNode(f *testing.F) { fuzzToHost(f, kinds.Node(), nil) }
