package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestSecretFields(t *testing.T) {
	checkFields(t, []fieldList{{
		of:         corev1.Secret{},
		copied:     []string{"Data", "Immutable"},
		translated: []string{"ObjectMeta", "Type"},
		// StringData is never stored.
		dropped: []string{"TypeMeta", "StringData"},
	}})
}

func FuzzSecret(f *testing.F) { fuzzToHost(f, kinds.Secret(), nil) }
