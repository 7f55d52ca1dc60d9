package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestServiceAccountFields(t *testing.T) {
	checkFields(t, []fieldList{{
		of:         corev1.ServiceAccount{},
		translated: []string{"ObjectMeta", "AutomountServiceAccountToken"},
		// The tenant's API gives pods their pull secrets, and their tokens.
		dropped: []string{"TypeMeta", "Secrets", "ImagePullSecrets"},
	}})
}

// FuzzServiceAccount: without an allowed annotation nothing crosses, with one it
// and nothing else.
func FuzzServiceAccount(f *testing.F) {
	fuzzToHost(f, kinds.ServiceAccount(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*corev1.ServiceAccount)
		if virtual.Annotations == nil {
			virtual.Annotations = map[string]string{}
		}
		virtual.Annotations["eks.amazonaws.com/role-arn"] = "role"
		none, err := kinds.ServiceAccount().ToHost(translate.Input[*corev1.ServiceAccount]{Tenant: in.Tenant, Virtual: virtual})
		if none != nil || err != nil {
			t.Fatalf("it crosses though no annotation is allowed: %v, %v", none, err)
		}
		config := testTenant()
		config.ServiceAccountAnnotations = []string{"eks.amazonaws.com/role-arn"}
		tenant := translate.NewTenant(config, testOwner())
		host, err := kinds.ServiceAccount().ToHost(translate.Input[*corev1.ServiceAccount]{Tenant: tenant, Virtual: virtual})
		if err != nil {
			t.Fatal(err)
		}
		checkHostObject(t, translate.Input[translate.Object]{Tenant: tenant, Virtual: virtual}, host)
		if host.AutomountServiceAccountToken == nil || *host.AutomountServiceAccountToken || len(host.Secrets)+len(host.ImagePullSecrets) > 0 {
			t.Fatalf("the copy has more than a name: %v", host)
		}
		for key := range virtual.Annotations {
			if _, crossed := host.Annotations[key]; crossed != (key == "eks.amazonaws.com/role-arn") {
				t.Fatalf("annotation %q crossed: %v", key, crossed)
			}
		}
	})
}
