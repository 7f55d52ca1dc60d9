package main

import (
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// comparison is what came of comparing the two sides.
type comparison struct {
	// Compared is how many pairs were looked at, of each kind.
	Compared map[string]int
	// NotAllowed objects have no place on the host for a reason that the tenant was
	// told.
	NotAllowed int
	Problems   []string
}

// compare recomputes, with the pure translation, what each object should be on
// the host, and what should have come back of it.
func (s *snapshot) compare(all []translate.Any) comparison {
	c := comparison{Compared: map[string]int{}}
	problem := func(kind, what, format string, args ...any) {
		c.Problems = append(c.Problems, fmt.Sprintf("%s %s: ", kind, what)+fmt.Sprintf(format, args...))
	}
	names := s.names(all)
	referenced := s.referenced(all)
	for _, kind := range all {
		if kind.ToHost == nil {
			continue
		}
		kindName := kind.GroupVersionKind.Kind
		onHost := map[types.NamespacedName]translate.Object{}
		for _, host := range s.objects[translate.Host][kind.GroupKind()] {
			if virtual, ours := s.tenant.Owns(host); ours {
				onHost[virtual] = host
			} else if s.leftover(host) {
				problem(kindName, host.GetName(), "on the host it has our labels, and stands for nothing")
			}
		}
		for _, virtual := range s.objects[translate.Virtual][kind.GroupKind()] {
			name := types.NamespacedName{Namespace: virtual.GetNamespace(), Name: virtual.GetName()}
			host := onHost[name]
			delete(onHost, name)
			if kind.WhenReferenced && !referenced[reference{kind.GroupKind(), name}] {
				if host != nil {
					problem(kindName, name.String(), "nothing refers to it, and it is on the host")
				}
				continue
			}
			c.Compared[kindName]++
			if err := s.pair(kind, virtual, host, names, &c); err != nil {
				problem(kindName, name.String(), "%v", err)
			}
		}
		for name, host := range onHost {
			problem(kindName, name.String(), "it is gone in the tenant, and is on the host as %s", host.GetName())
		}
	}
	return c
}

// leftover tells whether a host object claims to be the tenant's and is neither
// tokens of a pod nor what a controller of the host has made of a synced object,
// with its labels.
func (s *snapshot) leftover(host translate.Object) bool {
	made := metav1.GetControllerOf(host)
	return host.GetLabels()[api.LabelComponent] == api.ComponentSynced &&
		host.GetAnnotations()[api.AnnotationTokensOf] == "" && made == nil
}

// pair compares one virtual object with its host object.
func (s *snapshot) pair(kind translate.Any, virtual, host translate.Object, names translate.Names, c *comparison) error {
	in := translate.Input[translate.Object]{Tenant: s.tenant, Virtual: virtual, Host: host, Names: names}
	if kind.Refs != nil {
		for _, ref := range kind.Refs(virtual, host) {
			if ref.Read {
				s.gather(ref, &in.Refs)
			}
		}
	}
	if virtual.GetDeletionTimestamp() != nil && kind.Graceful && host == nil {
		return nil // Only finalizers keep it.
	}
	desired, err := kind.ToHost(in)
	if err != nil {
		c.NotAllowed++
		return nil
	}
	switch {
	case desired == nil && host == nil:
		return nil
	case desired == nil:
		return fmt.Errorf("it has no place on the host, and is there as %s", host.GetName())
	case host == nil:
		return fmt.Errorf("it is not on the host as %s", desired.GetName())
	}
	if got := host.GetAnnotations()[api.AnnotationVirtualUID]; got != string(virtual.GetUID()) {
		return fmt.Errorf("on the host it stands for uid %q, and it is %q", got, virtual.GetUID())
	}
	if kind.Replace != nil && kind.Replace(host, desired) {
		return fmt.Errorf("what cannot be changed differs on the host")
	}
	want := host.DeepCopyObject().(translate.Object)
	if kind.Merge != nil {
		want = kind.Merge(want, desired)
	}
	translate.MergeMeta(want, desired)
	for _, sub := range kind.Subresources {
		from := desired
		if sub.From != nil {
			from = sub.From(in)
		}
		want = sub.Merge(want, from)
	}
	if !equality.Semantic.DeepEqual(want, host) {
		return fmt.Errorf("on the host (-should be +is):\n%s", cmp.Diff(want, host))
	}
	if kind.Status == nil {
		return nil
	}
	back, err := kind.Status(in)
	if err != nil {
		return err
	}
	if back != nil && !equality.Semantic.DeepEqual(back, virtual) {
		return fmt.Errorf("in the tenant (-should be +is):\n%s", cmp.Diff(back, virtual))
	}
	return nil
}

// gather adds what a reference names.
func (s *snapshot) gather(ref translate.Ref, into *translate.Objects) {
	namespace := ref.Namespace
	if ref.Side == translate.Host && namespaced(ref.Kind) {
		namespace = s.tenant.HostNamespace
	}
	for _, object := range s.objects[ref.Side][ref.Kind] {
		if object.GetNamespace() != namespace || ref.Name != "" && object.GetName() != ref.Name {
			continue
		}
		if ref.Side == translate.Host {
			into.Host = append(into.Host, object)
		} else {
			into.Virtual = append(into.Virtual, object)
		}
	}
}

// reference is one object that is named.
type reference struct {
	kind schema.GroupKind
	types.NamespacedName
}

// referenced are the virtual objects that some object needs on the host.
func (s *snapshot) referenced(all []translate.Any) map[reference]bool {
	out := map[reference]bool{}
	for _, kind := range all {
		if kind.ToHost == nil || kind.Refs == nil {
			continue
		}
		onHost := map[types.NamespacedName]translate.Object{}
		for _, host := range s.objects[translate.Host][kind.GroupKind()] {
			if virtual, ours := s.tenant.Owns(host); ours {
				onHost[virtual] = host
			}
		}
		for _, virtual := range s.objects[translate.Virtual][kind.GroupKind()] {
			host := onHost[types.NamespacedName{Namespace: virtual.GetNamespace(), Name: virtual.GetName()}]
			for _, ref := range kind.Refs(virtual, host) {
				if ref.Sync && ref.Side == translate.Virtual {
					out[reference{ref.Kind, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}] = true
				}
			}
		}
	}
	return out
}

// names knows the host names of all virtual objects.
func (s *snapshot) names(all []translate.Any) translate.Names {
	known := map[string]types.NamespacedName{}
	for _, kind := range all {
		if kind.ToHost == nil {
			continue
		}
		for _, virtual := range s.objects[translate.Virtual][kind.GroupKind()] {
			name := types.NamespacedName{Namespace: virtual.GetNamespace(), Name: virtual.GetName()}
			known[translate.HostName(name.Namespace, name.Name)] = name
		}
	}
	return func(host string) (types.NamespacedName, bool) {
		name, ok := known[host]
		return name, ok
	}
}

// state is short, and another one when anything changes that is compared.
func (s *snapshot) state() string {
	var b strings.Builder
	for _, side := range []translate.Side{translate.Virtual, translate.Host} {
		for kind, objects := range s.objects[side] {
			if kind.Kind == "Node" {
				continue // They say every few seconds that they are alive.
			}
			sum := 0
			for _, object := range objects {
				for _, r := range string(object.GetUID()) + object.GetResourceVersion() {
					sum = sum*31 + int(r)
				}
			}
			b.WriteString(fmt.Sprintf("%s %s %d %d\n", side, kind, len(objects), sum))
		}
	}
	return sortedLines(b.String())
}
