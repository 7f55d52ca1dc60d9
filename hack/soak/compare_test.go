package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// agreeing is a tenant in which a pod refers to a config map, and a Service.
func agreeing(t *testing.T) *snapshot {
	t.Helper()
	s := &snapshot{
		tenant: translate.NewTenant(api.ControlPlaneConfig{Tenant: "acme", HostNamespace: "acme-host"}, nil),
		objects: map[translate.Side]map[schema.GroupKind][]translate.Object{
			translate.Virtual: {}, translate.Host: {},
		},
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-of-" + name)}
	}
	s.put(translate.Virtual, "ConfigMap", &corev1.ConfigMap{ObjectMeta: meta("used"), Data: map[string]string{"a": "1"}})
	s.put(translate.Virtual, "ConfigMap", &corev1.ConfigMap{ObjectMeta: meta("unused")})
	s.put(translate.Virtual, "Pod", &corev1.Pod{ObjectMeta: meta("web"), Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "main"}},
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}}}},
	}})
	s.put(translate.Virtual, "Service", &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}})
	for _, kind := range kinds.All() {
		if kind.ToHost == nil {
			continue
		}
		for _, virtual := range s.objects[translate.Virtual][kind.GroupKind()] {
			if virtual.GetName() == "unused" {
				continue
			}
			host, err := kind.ToHost(translate.Input[translate.Object]{Tenant: s.tenant, Virtual: virtual})
			if err != nil {
				t.Fatal(err)
			}
			s.put(translate.Host, kind.GroupVersionKind.Kind, host)
		}
	}
	return s
}

func (s *snapshot) put(side translate.Side, kind string, object translate.Object) {
	gk := schema.GroupKind{Kind: kind}
	s.objects[side][gk] = append(s.objects[side][gk], object)
}

func (s *snapshot) first(side translate.Side, kind string) translate.Object {
	return s.objects[side][schema.GroupKind{Kind: kind}][0]
}

func TestCompare(t *testing.T) {
	for reason, tc := range map[string]struct {
		change func(*snapshot)
		want   string
	}{
		"both sides agree":                   {change: func(*snapshot) {}},
		"other contents on the host":         {change: func(s *snapshot) { s.first(translate.Host, "ConfigMap").(*corev1.ConfigMap).Data["a"] = "2" }, want: "ConfigMap default/used: on the host"},
		"our label gone":                     {change: func(s *snapshot) { delete(s.first(translate.Host, "Pod").GetLabels(), api.LabelTenant) }, want: "Pod default/web: it is not on the host"},
		"missing on the host":                {change: func(s *snapshot) { s.objects[translate.Host][schema.GroupKind{Kind: "Pod"}] = nil }, want: "Pod default/web: it is not on the host"},
		"left behind on the host":            {change: func(s *snapshot) { s.objects[translate.Virtual][schema.GroupKind{Kind: "Service"}] = nil }, want: "Service default/web: it is gone in the tenant"},
		"for an earlier object of that name": {change: func(s *snapshot) { s.first(translate.Virtual, "Service").SetUID("another") }, want: `Service default/web: on the host it stands for uid "uid-of-web"`},
		"a copy of no one": {change: func(s *snapshot) {
			s.put(translate.Host, "Service", &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "copy", Labels: map[string]string{api.LabelComponent: api.ComponentSynced}}})
		}, want: "Service copy: on the host it has our labels"},
		"no longer needed": {change: func(s *snapshot) {
			s.first(translate.Virtual, "Pod").(*corev1.Pod).Spec.Volumes = nil
		}, want: "ConfigMap default/used: nothing refers to it"},
		"not what came back": {change: func(s *snapshot) {
			s.first(translate.Host, "Service").(*corev1.Service).Status.Conditions = []metav1.Condition{{Type: "Ready"}}
		}, want: "Service default/web: on the host"},
	} {
		t.Run(reason, func(t *testing.T) {
			s := agreeing(t)
			tc.change(s)
			c := s.compare(kinds.All())
			if tc.want == "" {
				if diff := cmp.Diff(map[string]int{"Pod": 1, "Service": 1, "ConfigMap": 1}, c.Compared); diff != "" || len(c.Problems) > 0 {
					t.Errorf("compared (-want +got):\n%s\nproblems: %q", diff, c.Problems)
				}
				return
			}
			for _, problem := range c.Problems {
				if strings.HasPrefix(problem, tc.want) {
					return
				}
			}
			t.Errorf("problems are %q, want one that begins with %q", c.Problems, tc.want)
		})
	}
}

// TestState: a change of any object is seen, and nothing else.
func TestState(t *testing.T) {
	s := agreeing(t)
	before := s.state()
	if s.state() != before {
		t.Error("it changes by itself")
	}
	s.first(translate.Host, "Pod").SetResourceVersion("7")
	if s.state() == before {
		t.Error("a change is not seen")
	}
}
