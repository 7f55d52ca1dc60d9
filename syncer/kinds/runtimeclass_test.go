package kinds_test

import (
	"testing"

	nodev1 "k8s.io/api/node/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestRuntimeClassFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         nodev1.RuntimeClass{},
			copied:     []string{"Handler", "Overhead"},
			translated: []string{"ObjectMeta"},
			dropped:    []string{"TypeMeta", "Scheduling"},
		},
		{of: nodev1.Overhead{}, copied: []string{"PodFixed"}},
	})
}

func FuzzRuntimeClass(f *testing.F) { fuzzToHost(f, kinds.RuntimeClass(), nil) }
