package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestConfigMapFields(t *testing.T) {
	checkFields(t, []fieldList{{
		of:         corev1.ConfigMap{},
		copied:     []string{"Data", "BinaryData", "Immutable"},
		translated: []string{"ObjectMeta"},
		dropped:    []string{"TypeMeta"},
	}})
}

func FuzzConfigMap(f *testing.F) { fuzzToHost(f, kinds.ConfigMap(), nil) }
