package isolation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
func Namespace(e tenancy.Effective) *corev1.Namespace {
	services := make([]string, 0, len(e.Limits.Services))
	for _, service := range e.Limits.Services {
		services = append(services, string(service))
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
			},
		},
	}
}
