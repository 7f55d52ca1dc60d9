package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// maxAnnotations is how many bytes the annotations of one object may have, keys
// and values together (apimachinery, TotalAnnotationSizeLimitB).
const maxAnnotations = 256 << 10

// externalDNS is the prefix of annotations by which the host's external-dns would
// make any name in its zones lead to the tenant. One that runs in the tenant sees
// them there.
const externalDNS = "external-dns.alpha.kubernetes.io/"

// HostMeta is the metadata of the host object of a virtual one: computed name,
// the tenant's namespace, labels and annotations but for reserved ones, our
// marks, the tenant's control plane as owner. Finalizers, owners and
// generateName do not cross. Annotations named in drop do not either; one that
// ends in '/' is a prefix. See also FitAnnotations.
func (t Tenant) HostMeta(virtual metav1.Object, drop ...string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:        HostName(virtual.GetNamespace(), virtual.GetName()),
		Namespace:   t.HostNamespace,
		Labels:      map[string]string{},
		Annotations: map[string]string{},
	}
	drop = append([]string{api.Prefix, corev1.LastAppliedConfigAnnotation, externalDNS}, drop...)
	for key, value := range virtual.GetLabels() {
		if !strings.HasPrefix(key, api.Prefix) {
			meta.Labels[key] = value
		}
	}
	for key, value := range virtual.GetAnnotations() {
		if !matches(key, drop) {
			meta.Annotations[key] = value
		}
	}
	labels, annotations := keys(meta.Labels), keys(meta.Annotations)
	if labels != "" {
		meta.Annotations[api.AnnotationSyncedLabels] = labels
	}
	if annotations != "" {
		meta.Annotations[api.AnnotationSyncedAnnotations] = annotations
	}
	t.Mark(&meta, virtual)
	FitAnnotations(&meta)
	return meta
}

// FitAnnotations leaves out the largest annotations of the virtual object if,
// together with ours, they are more than an object may have: they are for the
// virtual object's readers, who have them there.
func FitAnnotations(host metav1.Object) {
	annotations := host.GetAnnotations()
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	if size <= maxAnnotations {
		return
	}
	synced := strings.Split(annotations[api.AnnotationSyncedAnnotations], ",")
	slices.SortStableFunc(synced, func(a, b string) int { return len(annotations[b]) - len(annotations[a]) })
	for size > maxAnnotations && len(synced) > 0 {
		key := synced[0]
		synced = synced[1:]
		size -= 2*len(key) + 1 + len(annotations[key])
		delete(annotations, key)
	}
	slices.Sort(synced)
	annotations[api.AnnotationSyncedAnnotations] = strings.Join(synced, ",")
	host.SetAnnotations(annotations)
}

// Mark puts our labels, annotations and owner on the metadata of a host object
// that stands for a virtual one.
func (t Tenant) Mark(meta *metav1.ObjectMeta, virtual metav1.Object) {
	if meta.Labels == nil {
		meta.Labels = map[string]string{}
	}
	if meta.Annotations == nil {
		meta.Annotations = map[string]string{}
	}
	meta.Labels[api.LabelTenant] = t.Name
	meta.Labels[api.LabelComponent] = api.ComponentSynced
	if namespace := virtual.GetNamespace(); namespace != "" {
		meta.Labels[api.LabelVirtualNamespace] = namespace
		meta.Annotations[api.AnnotationVirtualNamespace] = namespace
	}
	meta.Annotations[api.AnnotationVirtualName] = virtual.GetName()
	if uid := virtual.GetUID(); uid != "" {
		meta.Annotations[api.AnnotationVirtualUID] = string(uid)
	}
	if t.Owner != nil {
		meta.OwnerReferences = []metav1.OwnerReference{*t.Owner}
	}
}

// Owns tells whether a host object stands for a virtual one of this tenant,
// and for which. A copy that somebody made under another name does not.
func (t Tenant) Owns(host metav1.Object) (types.NamespacedName, bool) {
	annotations := host.GetAnnotations()
	virtual := types.NamespacedName{
		Namespace: annotations[api.AnnotationVirtualNamespace],
		Name:      annotations[api.AnnotationVirtualName],
	}
	labels := host.GetLabels()
	ok := labels[api.LabelTenant] == t.Name &&
		labels[api.LabelComponent] == api.ComponentSynced &&
		virtual.Name != "" &&
		host.GetNamespace() == t.HostNamespace &&
		host.GetName() == HostName(virtual.Namespace, virtual.Name)
	return virtual, ok
}

// Strayed tells whether a host object is the one that stands for a virtual
// object, although somebody on the host has taken some of our marks from it:
// its name is computed, and one mark at least is left.
func (t Tenant) Strayed(host metav1.Object, virtual types.NamespacedName) bool {
	if host.GetNamespace() != t.HostNamespace || host.GetName() != HostName(virtual.Namespace, virtual.Name) {
		return false
	}
	if _, ours := t.Owns(host); ours {
		return false
	}
	ours := func(key, _ string) bool { return strings.HasPrefix(key, api.Prefix) }
	return anyOf(host.GetLabels(), ours) || anyOf(host.GetAnnotations(), ours) ||
		t.Owner != nil && slices.ContainsFunc(host.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == t.Owner.UID })
}

func anyOf(m map[string]string, is func(key, value string) bool) bool {
	for key, value := range m {
		if is(key, value) {
			return true
		}
	}
	return false
}

// MergeMeta takes over labels, annotations and our owner reference from
// desired into host. What others put on the host object stays; what came from
// the virtual object and is no longer there goes.
func MergeMeta(host, desired metav1.Object) {
	before := host.GetAnnotations()
	labels := merge(host.GetLabels(), desired.GetLabels(), before[api.AnnotationSyncedLabels])
	annotations := merge(before, desired.GetAnnotations(), before[api.AnnotationSyncedAnnotations])
	host.SetLabels(labels)
	host.SetAnnotations(annotations)

	owners := host.GetOwnerReferences()
	for _, want := range desired.GetOwnerReferences() {
		if !slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == want.UID }) {
			owners = append(slices.Clone(owners), want)
		}
	}
	host.SetOwnerReferences(owners)
}

// merge lays want over have; keys that were synced, and all of ours, go when
// want does not have them.
func merge(have, want map[string]string, synced string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for key := range strings.SplitSeq(synced, ",") {
		delete(out, key)
	}
	for key := range have {
		if strings.HasPrefix(key, api.Prefix) {
			delete(out, key)
		}
	}
	maps.Copy(out, want)
	if len(out) == 0 {
		return nil
	}
	return out
}

// VirtualMeta is the metadata of a virtual object that stands for a host one
// of the same name: labels and annotations as far as keep says, and our mark.
func VirtualMeta(host metav1.Object, keep func(key string) bool) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:        host.GetName(),
		Annotations: map[string]string{api.AnnotationFromHost: "true"},
	}
	for key, value := range host.GetLabels() {
		if !strings.HasPrefix(key, api.Prefix) && keep(key) {
			metav1.SetMetaDataLabel(&meta, key, value)
		}
	}
	for key, value := range host.GetAnnotations() {
		if !strings.HasPrefix(key, api.Prefix) && key != corev1.LastAppliedConfigAnnotation && keep(key) {
			meta.Annotations[key] = value
		}
	}
	return meta
}

// FromHost tells whether a virtual object stands for a host one.
func FromHost(virtual metav1.Object) bool {
	return virtual.GetAnnotations()[api.AnnotationFromHost] != ""
}

// NamespaceLabel is the key under which a host pod carries the label of this
// key of its virtual namespace, so that selectors by namespace can be
// translated into selectors of pods.
func NamespaceLabel(key string) string {
	sum := sha256.Sum256([]byte(key))
	return api.NamespaceLabelPrefix + hex.EncodeToString(sum[:])[:hashLength]
}

// FieldAnnotation is the key under which a host pod keeps the virtual value of
// a field for the downward API.
func FieldAnnotation(fieldPath string) string {
	sum := sha256.Sum256([]byte(fieldPath))
	return api.AnnotationFieldPrefix + hex.EncodeToString(sum[:])[:hashLength]
}

func matches(key string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return key == p || strings.HasSuffix(p, "/") && strings.HasPrefix(key, p)
	})
}

func keys(m map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ",")
}
