package kinds

import (
	"errors"
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// Ingress crosses to the host, whose ingress controller serves it. One whose
// class the tenant has made is for a controller in the tenant, and stays there.
//
// Controllers do a lot at the word of an annotation, and for all tenants at once:
// only those cross that are known to do no harm; see ingress_annotations.go.
func Ingress() translate.Kind[*networkingv1.Ingress] {
	return translate.Kind[*networkingv1.Ingress]{
		GroupVersionKind:  networkingv1.SchemeGroupVersion.WithKind("Ingress"),
		Resource:          "ingresses",
		Namespaced:        true,
		New:               func() *networkingv1.Ingress { return &networkingv1.Ingress{} },
		NewList:           func() translate.ObjectList { return &networkingv1.IngressList{} },
		Rules:             []rbacv1.PolicyRule{rule(networkingv1.GroupName, everything, "ingresses")},
		Refs:              ingressRefs,
		ToHost:            ingressToHost,
		Merge:             ingressMerge,
		Status:            ingressStatus,
		StatusSubresource: true,
	}
}

// ingressClassAnnotation is the older way to name a class.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// ingressClassOf is the class that an Ingress names; the API lets only one of
// both ways be used when it is made.
func ingressClassOf(virtual *networkingv1.Ingress) string {
	if class := virtual.Annotations[ingressClassAnnotation]; class != "" {
		return class
	}
	if class := virtual.Spec.IngressClassName; class != nil {
		return *class
	}
	return ""
}

func ingressRefs(virtual, _ *networkingv1.Ingress) []translate.Ref {
	if virtual == nil {
		return nil
	}
	r := refCollector{namespace: virtual.Namespace, seen: map[translate.Ref]bool{}}
	if class := ingressClassOf(virtual); class != "" {
		r.add(translate.Ref{Kind: schema.GroupKind{Group: networkingv1.GroupName, Kind: "IngressClass"}, Name: class, Read: true, Watch: true})
	}
	for _, tls := range virtual.Spec.TLS {
		r.secret(tls.SecretName, false)
	}
	for _, backend := range ingressBackends(&virtual.Spec) {
		if backend.Service != nil {
			// For its name in texts; Services cross by themselves.
			r.add(translate.Ref{Kind: coreKind("Service"), Namespace: virtual.Namespace, Name: backend.Service.Name})
		}
	}
	return r.refs
}

// ingressBackends are all that a spec has.
func ingressBackends(spec *networkingv1.IngressSpec) []*networkingv1.IngressBackend {
	var all []*networkingv1.IngressBackend
	if spec.DefaultBackend != nil {
		all = append(all, spec.DefaultBackend)
	}
	for i := range spec.Rules {
		if http := spec.Rules[i].HTTP; http != nil {
			for j := range http.Paths {
				all = append(all, &http.Paths[j].Backend)
			}
		}
	}
	return all
}

func ingressToHost(in translate.Input[*networkingv1.Ingress]) (*networkingv1.Ingress, error) {
	virtual := in.Virtual
	class := ingressClassOf(virtual)
	if own := translate.Find[*networkingv1.IngressClass](in.Refs, translate.Virtual, "", class); own != nil && !translate.FromHost(own) {
		return nil, nil
	}
	if err := ingressAllowed(in.Tenant, virtual, class); err != nil {
		return nil, err
	}
	annotations, err := ingressAnnotations(virtual.Annotations)
	if err != nil {
		return nil, err
	}
	spec := networkingv1.IngressSpec{IngressClassName: virtual.Spec.IngressClassName}
	if virtual.Spec.DefaultBackend != nil {
		spec.DefaultBackend = ingressBackend(virtual.Namespace, virtual.Spec.DefaultBackend)
	}
	for _, tls := range virtual.Spec.TLS {
		out := networkingv1.IngressTLS{Hosts: append([]string(nil), tls.Hosts...)}
		if tls.SecretName != "" {
			out.SecretName = translate.HostName(virtual.Namespace, tls.SecretName)
		}
		spec.TLS = append(spec.TLS, out)
	}
	for _, rule := range virtual.Spec.Rules {
		out := networkingv1.IngressRule{Host: rule.Host}
		if rule.HTTP != nil {
			out.HTTP = &networkingv1.HTTPIngressRuleValue{}
			for i := range rule.HTTP.Paths {
				path := rule.HTTP.Paths[i]
				out.HTTP.Paths = append(out.HTTP.Paths, networkingv1.HTTPIngressPath{
					Path: path.Path, PathType: path.PathType, Backend: *ingressBackend(virtual.Namespace, &path.Backend),
				})
			}
		}
		spec.Rules = append(spec.Rules, out)
	}
	meta := virtual.ObjectMeta
	meta.Annotations = annotations
	return &networkingv1.Ingress{ObjectMeta: in.Tenant.HostMeta(&meta), Spec: spec}, nil
}

// ingressPathBreaks are what no path needs and a controller might take for the
// end of one in its configuration.
const ingressPathBreaks = " \t\r\n;\"'`"

func ingressAllowed(tenant translate.Tenant, virtual *networkingv1.Ingress, class string) error {
	if len(tenant.IngressClasses) > 0 && class == "" {
		return fmt.Errorf("spec.ingressClassName is needed in this cluster, one of: %s", strings.Join(tenant.IngressClasses, ", "))
	}
	if class != "" && !ingressClassAllowed(tenant, class) {
		return fmt.Errorf("ingress class %q may not be used in this cluster, only: %s", class, strings.Join(tenant.IngressClasses, ", "))
	}
	if name := virtual.Spec.IngressClassName; name != nil && !ingressClassAllowed(tenant, *name) {
		return fmt.Errorf("ingress class %q may not be used in this cluster, only: %s", *name, strings.Join(tenant.IngressClasses, ", "))
	}
	for _, backend := range ingressBackends(&virtual.Spec) {
		if backend.Resource != nil {
			return fmt.Errorf("a backend that is a %s cannot be used in this cluster: use a Service", backend.Resource.Kind)
		}
	}
	if virtual.Spec.DefaultBackend != nil {
		if err := hostAllowed(tenant, "spec.defaultBackend", ""); err != nil {
			return err
		}
	}
	for i, rule := range virtual.Spec.Rules {
		if err := hostAllowed(tenant, fmt.Sprintf("spec.rules[%d].host", i), rule.Host); err != nil {
			return err
		}
		if rule.HTTP == nil {
			continue
		}
		for j, path := range rule.HTTP.Paths {
			if strings.ContainsAny(path.Path, ingressPathBreaks) {
				return fmt.Errorf("spec.rules[%d].http.paths[%d].path: %q has spaces, quotes or semicolons, which no path in this cluster may have", i, j, path.Path)
			}
		}
	}
	for i, tls := range virtual.Spec.TLS {
		path := fmt.Sprintf("spec.tls[%d].hosts", i)
		if len(tls.Hosts) == 0 {
			if err := hostAllowed(tenant, path, ""); err != nil {
				return err
			}
		}
		for _, host := range tls.Hosts {
			if err := hostAllowed(tenant, path, host); err != nil {
				return err
			}
		}
	}
	if len(virtual.Spec.Rules) == 0 && virtual.Spec.DefaultBackend == nil {
		return errors.New("an Ingress needs rules or a default backend")
	}
	return nil
}

// ingressBackend is only called for Services.
func ingressBackend(namespace string, virtual *networkingv1.IngressBackend) *networkingv1.IngressBackend {
	out := &networkingv1.IngressBackend{}
	if service := virtual.Service; service != nil {
		out.Service = &networkingv1.IngressServiceBackend{Name: translate.HostName(namespace, service.Name), Port: service.Port}
	}
	return out
}

// ingressMerge: a class that the host has chosen stays where the tenant names
// none.
func ingressMerge(host, desired *networkingv1.Ingress) *networkingv1.Ingress {
	class := host.Spec.IngressClassName
	host.Spec = desired.Spec
	if host.Spec.IngressClassName == nil && desired.Annotations[ingressClassAnnotation] == "" {
		host.Spec.IngressClassName = class
	}
	return host
}

func ingressStatus(in translate.Input[*networkingv1.Ingress]) (*networkingv1.Ingress, error) {
	virtual := in.Virtual.DeepCopy()
	virtual.Status = networkingv1.IngressStatus{LoadBalancer: in.Host.DeepCopy().Status.LoadBalancer}
	return virtual, nil
}
