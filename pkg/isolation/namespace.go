package isolation

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Labels of Pod Security admission (k8s.io/pod-security-admission/api).
const (
	enforceLabel = "pod-security.kubernetes.io/enforce"
	warnLabel    = "pod-security.kubernetes.io/warn"
)

// Namespace is the tenant's host namespace, with the Pod Security level that
// the host enforces. It warns at restricted, so that people see what a stricter
// level would refuse.
func Namespace(e tenancy.Effective, host Host) *corev1.Namespace {
	services := make([]string, 0, len(e.Limits.Services))
	for _, service := range e.Limits.Services {
		services = append(services, string(service))
	}
	runtimes, priorities := e.Limits.RuntimeClasses, e.Limits.PriorityClasses
	if e.Limits.RuntimeClass != "" {
		runtimes = append([]string{e.Limits.RuntimeClass}, runtimes...)
	}
	if host.DefaultPriorityClass != "" {
		// What a pod has that names none.
		priorities = append([]string{host.DefaultPriorityClass}, priorities...)
	}
	return &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{
			Name: e.Namespace,
			Labels: map[string]string{
				api.LabelTenant:     e.Name,
				api.LabelTenantType: string(e.Type),
				enforceLabel:        string(e.Limits.PodSecurity),
				warnLabel:           string(api.PodSecurityRestricted),
			},
			Annotations: map[string]string{
				api.AnnotationTenantUID: string(e.UID),
				api.AnnotationServices:  strings.Join(services, ","),
				// What may be claimed of the host's ingress controllers and gateways.
				api.AnnotationHosts:          strings.Join(e.Limits.Hosts, ","),
				api.AnnotationIngressClasses: strings.Join(e.Limits.IngressClasses, ","),
				api.AnnotationGateways:       strings.Join(e.Limits.Gateways, ","),
				// What pods and claims may ask of the host.
				api.AnnotationNodeSelector:    labels.Set(e.Limits.NodeSelector).String(),
				api.AnnotationRuntimeClass:    e.Limits.RuntimeClass,
				api.AnnotationRuntimeClasses:  strings.Join(sorted(runtimes), ","),
				api.AnnotationPriorityClasses: strings.Join(sorted(priorities), ","),
				api.AnnotationStorageClasses:  strings.Join(e.Limits.StorageClasses, ","),
				api.AnnotationTolerations:     strings.Join(tolerations(e.Limits.Tolerations), ","),
			},
		},
	}
}

// PodSecurityLabels are those of a namespace's labels that Namespace sets for Pod
// Security admission.
func PodSecurityLabels(all map[string]string) map[string]string {
	set := map[string]string{}
	for _, key := range []string{enforceLabel, warnLabel} {
		if value, ok := all[key]; ok {
			set[key] = value
		}
	}
	return set
}

// tolerations are entries of a limit for the policy that compares them.
func tolerations(entries []corev1.Toleration) []string {
	texts := make([]string, 0, len(entries))
	for _, entry := range entries {
		operator, seconds := entry.Operator, ""
		if operator == "" {
			operator = corev1.TolerationOpEqual
		}
		if entry.TolerationSeconds != nil {
			seconds = strconv.FormatInt(*entry.TolerationSeconds, 10)
		}
		texts = append(texts, strings.Join([]string{entry.Key, string(operator), entry.Value, string(entry.Effect), seconds}, "|"))
	}
	return sorted(texts)
}

func sorted(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
