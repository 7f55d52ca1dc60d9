package kinds_test

import (
	"testing"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestStorageClassFields(t *testing.T) {
	checkFields(t, []fieldList{{
		of:         storagev1.StorageClass{},
		copied:     []string{"Provisioner", "ReclaimPolicy", "AllowVolumeExpansion", "VolumeBindingMode", "AllowedTopologies"},
		translated: []string{"ObjectMeta"},
		// Parameters may name the host's Secrets.
		dropped: []string{"TypeMeta", "Parameters", "MountOptions"},
	}})
}

func FuzzStorageClass(f *testing.F) { fuzzToHost(f, kinds.StorageClass(), nil) }
