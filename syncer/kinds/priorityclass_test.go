package kinds_test

import (
	"testing"

	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestPriorityClassFields(t *testing.T) {
	checkFields(t, []fieldList{{
		of:         schedulingv1.PriorityClass{},
		copied:     []string{"Value", "Description", "PreemptionPolicy"},
		translated: []string{"ObjectMeta"},
		dropped:    []string{"TypeMeta", "GlobalDefault"},
	}})
}

func FuzzPriorityClass(f *testing.F) { fuzzToHost(f, kinds.PriorityClass(), nil) }
