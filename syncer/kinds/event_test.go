package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

func TestEventFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of: corev1.Event{},
			copied: []string{
				"Reason", "Source", "FirstTimestamp", "LastTimestamp", "Count", "Type", "EventTime", "Series", "Action",
				"ReportingController", "ReportingInstance",
			},
			translated: []string{"ObjectMeta", "InvolvedObject", "Related", "Message"},
			dropped:    []string{"TypeMeta"},
		},
		{
			of:         corev1.ObjectReference{},
			copied:     []string{"Kind", "APIVersion", "FieldPath"},
			translated: []string{"Namespace", "Name", "UID"},
			dropped:    []string{"ResourceVersion"},
		},
	})
}

func FuzzEvent(f *testing.F) { fuzzToHost(f, kinds.Event(), nil) }
