package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestDropped(t *testing.T) {
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"a": "b"}},
			Spec: corev1.PodSpec{
				EnableServiceLinks: ptr.To(false),
				HostnameOverride:   ptr.To("db"),
				NodeSelector:       map[string]string{"disk": "fast"},
				Containers: []corev1.Container{{
					Name: "main", Image: "i", Command: []string{"x"},
					Resources:     corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": apiresource.MustParse("1")}},
					RestartPolicy: ptr.To(corev1.ContainerRestartPolicyOnFailure),
				}},
				Tolerations: []corev1.Toleration{{Key: "a"}, {Key: "b"}},
			},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
	}
	tests := map[string]struct {
		kept   func(*corev1.Pod)
		want   []string
		reason string
	}{
		"all kept": {kept: func(*corev1.Pod) {}, reason: "nothing to tell"},
		"more than asked": {
			kept: func(p *corev1.Pod) {
				p.Spec.NodeName = "n"
				p.Spec.Containers = append([]corev1.Container{{Name: "injected"}}, p.Spec.Containers...)
				p.Spec.Containers[1].Image = "mirror/i"
				p.Spec.Tolerations[0].Key = "c"
			},
			reason: "defaults, sidecars and rewritten images are the host's right",
		},
		"metadata and status": {
			kept:   func(p *corev1.Pod) { p.Labels, p.Status = nil, corev1.PodStatus{} },
			reason: "they are not lost by age",
		},
		"fields": {
			kept: func(p *corev1.Pod) {
				p.Spec.HostnameOverride = nil
				p.Spec.EnableServiceLinks = nil
				p.Spec.Containers[0].RestartPolicy = nil
				p.Spec.Containers[0].Command = nil
				p.Spec.Containers[0].Image = ""
			},
			want: []string{
				"spec.containers[main].image", "spec.containers[main].command", "spec.containers[main].restartPolicy",
				"spec.enableServiceLinks", "spec.hostnameOverride",
			},
			reason: "each is named as people write it, false ones too",
		},
		"entries": {
			kept: func(p *corev1.Pod) {
				p.Spec.NodeSelector = nil
				p.Spec.Tolerations = p.Spec.Tolerations[:1]
				p.Spec.Containers[0].Resources.Requests = nil
			},
			want:   []string{"spec.containers[main].resources.requests[cpu]", "spec.nodeSelector[disk]", "spec.tolerations[1]"},
			reason: "of maps and lists",
		},
		"a whole container": {
			kept:   func(p *corev1.Pod) { p.Spec.Containers[0].Name = "other" },
			want:   []string{"spec.containers[main]"},
			reason: "found by name, not by place",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			kept := pod()
			tc.kept(kept)
			var asked translate.Object = pod()
			if diff := cmp.Diff(tc.want, dropped(asked, kept)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
