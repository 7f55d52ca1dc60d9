package kinds

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Event of a synced object is shown to the tenant on the virtual object, in its
// names. Events never go the other way, so there is no loop.
func Event() translate.Kind[*corev1.Event] {
	return translate.Kind[*corev1.Event]{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events",
		Namespaced:       true,
		New:              func() *corev1.Event { return &corev1.Event{} },
		NewList:          func() translate.ObjectList { return &corev1.EventList{} },
		Rules:            []rbacv1.PolicyRule{rule("", readOnly, "events")},
		Refs:             eventRefs,
		ToVirtual:        eventToVirtual,
		Unwatched:        true,
	}
}

// eventRefs names the host object that an event is about: its annotations say
// what it stands for.
func eventRefs(_, host *corev1.Event) []translate.Ref {
	if host == nil {
		return nil
	}
	var refs []translate.Ref
	for _, about := range []*corev1.ObjectReference{&host.InvolvedObject, host.Related} {
		if about == nil || !eventKind(about) {
			continue
		}
		refs = append(refs, translate.Ref{
			Side:     translate.Host,
			Kind:     about.GroupVersionKind().GroupKind(),
			Name:     about.Name,
			Read:     true,
			Optional: true,
		})
	}
	return refs
}

// eventKind tells whether the tenant gets to see events about such objects: of
// Kubernetes' own kinds about these, and about custom resources.
func eventKind(about *corev1.ObjectReference) bool {
	switch kind := about.GroupVersionKind().GroupKind(); kind.Group {
	case corev1.GroupName:
		return kind.Kind == "Pod" || kind.Kind == "Service" || kind.Kind == "PersistentVolumeClaim"
	case networkingv1.GroupName:
		return kind.Kind == "Ingress"
	default:
		// What is read of other groups is custom, or is none of what kindOf knows.
		return kind.Kind != "" && strings.Contains(kind.Group, ".")
	}
}

func kindOf(object translate.Object) string {
	switch object := object.(type) {
	case *corev1.Pod:
		return "Pod"
	case *corev1.Service:
		return "Service"
	case *corev1.PersistentVolumeClaim:
		return "PersistentVolumeClaim"
	case *networkingv1.Ingress:
		return "Ingress"
	case *unstructured.Unstructured:
		return object.GetKind()
	}
	return ""
}

func eventToVirtual(in translate.Input[*corev1.Event]) (*corev1.Event, error) {
	host := in.Host
	about, names := eventObject(in, &host.InvolvedObject)
	if about == nil {
		return nil, nil
	}
	var related *corev1.ObjectReference
	if host.Related != nil {
		related, _ = eventObject(in, host.Related)
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name:      eventName(host, about),
			Namespace: about.Namespace,
		},
		InvolvedObject:      *about,
		Related:             related,
		Reason:              host.Reason,
		Message:             in.Tenant.Rewrite(host.Message, names),
		Source:              host.Source,
		FirstTimestamp:      host.FirstTimestamp,
		LastTimestamp:       host.LastTimestamp,
		Count:               host.Count,
		Type:                host.Type,
		EventTime:           host.EventTime,
		Series:              host.Series.DeepCopy(),
		Action:              host.Action,
		ReportingController: host.ReportingController,
		ReportingInstance:   host.ReportingInstance,
	}, nil
}

// eventObject is the virtual object behind a reference of a host event, or nil
// if it is not one of the tenant's; and all names known then.
func eventObject(in translate.Input[*corev1.Event], host *corev1.ObjectReference) (*corev1.ObjectReference, translate.Names) {
	for _, object := range in.Refs.Host {
		virtual, ours := in.Tenant.Owns(object)
		// Without a uid, by which one would find it, an event is of no use; and
		// with that of another, it is about an earlier object of this name.
		uid := object.GetAnnotations()[api.AnnotationVirtualUID]
		if !ours || uid == "" || kindOf(object) != host.Kind || object.GetName() != host.Name || host.UID != "" && host.UID != object.GetUID() {
			continue
		}
		about := &corev1.ObjectReference{
			Kind:       host.Kind,
			APIVersion: host.APIVersion,
			Namespace:  virtual.Namespace,
			Name:       virtual.Name,
			UID:        types.UID(uid),
			FieldPath:  host.FieldPath,
		}
		return about, func(name string) (types.NamespacedName, bool) {
			if name == host.Name {
				return virtual, true
			}
			if in.Names == nil {
				return types.NamespacedName{}, false
			}
			return in.Names(name)
		}
	}
	return nil, nil
}

// eventName keeps the part that tells the events of one object apart.
func eventName(host *corev1.Event, about *corev1.ObjectReference) string {
	if suffix, ok := strings.CutPrefix(host.Name, host.InvolvedObject.Name+"."); ok && suffix != "" {
		return about.Name + "." + suffix
	}
	return translate.HostName(about.Namespace, host.Name)
}
