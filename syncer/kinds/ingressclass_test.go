package kinds_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestIngressClassFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         networkingv1.IngressClass{},
			translated: []string{"ObjectMeta", "Spec"},
			dropped:    []string{"TypeMeta"},
		},
		{of: networkingv1.IngressClassSpec{}, copied: []string{"Controller"}, dropped: []string{"Parameters"}},
	})
}

func FuzzIngressClass(f *testing.F) { fuzzToHost(f, kinds.IngressClass(), nil) }
