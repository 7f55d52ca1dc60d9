package tenancy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

func tenant(spec api.TenantSpec) *api.Tenant {
	return &api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "uid"}, Spec: spec}
}

func list(pairs ...string) corev1.ResourceList {
	quantities := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		quantities[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return quantities
}

func TestOfDefaults(t *testing.T) {
	asked := tenant(api.TenantSpec{})
	got := tenancy.Of(asked)
	want := tenancy.Effective{
		Name: "acme", UID: "uid", Type: api.VirtualCluster, Namespace: "acme",
		Path:         []string{"root", "acme"},
		LimitOrigins: map[string][]string{},
		Limits: tenancy.Limits{
			PodSecurity: api.PodSecurityBaseline,
			Services:    []corev1.ServiceType{corev1.ServiceTypeClusterIP},
			Internet:    true,
		},
		VirtualCluster: &tenancy.VirtualCluster{
			Version:     tenancy.DefaultVersion(),
			StorageSize: resource.MustParse("2Gi"),
			Resources: corev1.ResourceRequirements{
				Requests: list("cpu", "50m", "memory", "160Mi", "ephemeral-storage", "64Mi"),
				Limits:   list("cpu", "4", "memory", "2Gi"),
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(tenant(api.TenantSpec{}), asked); diff != "" {
		t.Errorf("the argument was changed:\n%s", diff)
	}
}

func TestContainerDefaults(t *testing.T) {
	cases := map[string]struct {
		quota  corev1.ResourceList
		asked  *api.ContainerDefaults
		want   api.ContainerDefaults
		reason string
	}{
		"no quota": {
			reason: "a pod without requests is admitted anyway",
		},
		"a count": {
			quota:  list("pods", "5"),
			reason: "it demands nothing of containers",
		},
		"requests": {
			quota:  list("requests.cpu", "4"),
			want:   api.ContainerDefaults{Requests: list("cpu", "50m")},
			reason: "the quota refuses containers without a request",
		},
		"limits": {
			quota:  list("limits.memory", "8Gi"),
			want:   api.ContainerDefaults{Requests: list("memory", "64Mi"), Limits: list("memory", "512Mi")},
			reason: "a default limit alone would be the default request too",
		},
		"a small quota": {
			quota:  list("limits.memory", "32Mi", "requests.cpu", "20m"),
			want:   api.ContainerDefaults{Requests: list("memory", "32Mi", "cpu", "20m"), Limits: list("memory", "32Mi")},
			reason: "a default that exceeds the quota would refuse every pod",
		},
		"asked": {
			quota:  list("cpu", "4"),
			asked:  &api.ContainerDefaults{Requests: list("cpu", "1"), Limits: list("memory", "1Gi")},
			want:   api.ContainerDefaults{Requests: list("cpu", "1"), Limits: list("memory", "1Gi")},
			reason: "what is asked for wins",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := tenancy.Of(tenant(api.TenantSpec{Limits: &api.Limits{Quota: c.quota, PodDefaults: c.asked}}))
			if diff := cmp.Diff(c.want, got.Limits.ContainerDefaults); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.reason, diff)
			}
		})
	}
}

func TestControlPlaneResources(t *testing.T) {
	cases := map[string]struct {
		spec  api.VirtualClusterSpec
		check func(corev1.ResourceRequirements) (corev1.ResourceName, string, string)
	}{
		"a request above the default limit raises the limit": {
			spec: api.VirtualClusterSpec{Resources: &corev1.ResourceRequirements{Requests: list("memory", "3Gi")}},
			check: func(r corev1.ResourceRequirements) (corev1.ResourceName, string, string) {
				return "memory", r.Limits.Memory().String(), "3Gi"
			},
		},
		"a limit below the default request lowers the request": {
			spec: api.VirtualClusterSpec{Resources: &corev1.ResourceRequirements{Limits: list("memory", "100Mi")}},
			check: func(r corev1.ResourceRequirements) (corev1.ResourceName, string, string) {
				return "memory", r.Requests.Memory().String(), "100Mi"
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := tenancy.Of(tenant(api.TenantSpec{VirtualCluster: &c.spec}))
			if resource, got, want := c.check(e.VirtualCluster.Resources); got != want {
				t.Errorf("%s is %s, want %s", resource, got, want)
			}
		})
	}
}

func TestMembersOfDescendantsStayOut(t *testing.T) {
	e := tenancy.Of(tenant(api.TenantSpec{Members: []api.Member{
		{Kind: "User", Name: "here", Role: api.RoleEdit},
		{Kind: "User", Name: "below", Role: api.RoleEdit, Scope: "Descendants"},
	}}))
	if len(e.Members) != 1 || e.Members[0].Name != "here" {
		t.Errorf("members are %v", e.Members)
	}
}

func TestValidateNamespace(t *testing.T) {
	cases := map[string]struct {
		spec    api.TenantSpec
		name    string
		refused bool
	}{
		"its own name":       {name: "acme"},
		"another":            {name: "acme", spec: api.TenantSpec{Namespace: "other"}},
		"default":            {name: "default", refused: true},
		"kube-":              {name: "kube-anything", refused: true},
		"kube-, as another":  {name: "acme", spec: api.TenantSpec{Namespace: "kube-system"}, refused: true},
		"the system's":       {name: "sublet-system", refused: true},
		"a folder takes any": {name: "default", spec: api.TenantSpec{Type: api.Folder}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			asked := tenant(c.spec)
			asked.Name = c.name
			if err := tenancy.ValidateNamespace(asked, api.SystemNamespace); (err != nil) != c.refused {
				t.Errorf("got %v", err)
			}
		})
	}
}

// custom is a custom resource in limits.
func custom(group, kind, resource string, edit func(*api.CustomResource)) api.CustomResource {
	r := api.CustomResource{Group: group, Version: "v1", Kind: kind, Resource: resource}
	if edit != nil {
		edit(&r)
	}
	return r
}

// certificates are described as docs/customresources.md says.
func certificates() api.CustomResource {
	return custom("cert-manager.io", "Certificate", "certificates", func(r *api.CustomResource) {
		r.References = []api.CustomReference{
			{Path: ".spec.secretName", Kind: "Secret", From: api.FromHost},
			{Path: ".spec.issuerRef.name", Group: "cert-manager.io", Kind: "Issuer", KindPath: ".spec.issuerRef.kind"},
		}
		r.SelectorPaths, r.LabelPaths, r.NamespacePaths, r.VerbatimPaths = []string{".spec.a"}, []string{".spec.b"}, []string{".spec.c"}, []string{".spec.d"}
		r.HostPaths = []string{".spec.dnsNames[*]", ".spec.commonName"}
	})
}

func TestValidateLimits(t *testing.T) {
	cases := map[string]struct {
		limits api.Limits
		// where is part of the path of the one error; empty when there is none.
		where string
		// says is what the error must tell.
		says string
	}{
		"nothing": {},
		"all kinds of quota": {limits: api.Limits{Quota: list(
			"cpu", "1", "requests.cpu", "100m", "limits.memory", "1Gi", "pods", "3", "count/deployments.apps", "2",
			"requests.nvidia.com/gpu", "1", "hugepages-2Mi", "2Mi", "requests.storage", "1Gi",
			"fast.storageclass.storage.k8s.io/requests.storage", "1Gi", "fast.storageclass.storage.k8s.io/persistentvolumeclaims", "1")}},
		"a misspelt quota":          {limits: api.Limits{Quota: list("request.cpu", "1")}, where: "quota", says: `"requests.cpu"`},
		"a kind without count":      {limits: api.Limits{Quota: list("deployments", "1")}, where: "quota", says: "count/"},
		"an extended resource":      {limits: api.Limits{Quota: list("nvidia.com/gpu", "1")}, where: "quota", says: "requests.nvidia.com/gpu"},
		"less than nothing":         {limits: api.Limits{Quota: list("pods", "-1")}, where: "pods", says: "negative"},
		"half a pod":                {limits: api.Limits{Quota: list("pods", "500m")}, where: "pods", says: "whole"},
		"a default that is no":      {limits: api.Limits{PodDefaults: &api.ContainerDefaults{Requests: list("pods", "1")}}, where: "podDefaults", says: "cpu"},
		"a request above a limit":   {limits: api.Limits{PodDefaults: &api.ContainerDefaults{Requests: list("cpu", "2"), Limits: list("cpu", "1")}}, where: "podDefaults.requests", says: "limit"},
		"an unknown service":        {limits: api.Limits{Services: []corev1.ServiceType{"Balancer"}}, where: "services", says: "LoadBalancer"},
		"a range with stray bits":   {limits: api.Limits{Network: &api.NetworkLimits{AllowedCIDRs: []string{"10.1.2.3/16"}}}, where: "allowedCIDRs", says: "10.1.0.0/16"},
		"an address for a range":    {limits: api.Limits{Network: &api.NetworkLimits{AllowedCIDRs: []string{"10.1.2.3"}}}, where: "allowedCIDRs", says: "range"},
		"a selector with a space":   {limits: api.Limits{NodeSelector: map[string]string{"a b": "c"}}, where: "nodeSelector"},
		"host names":                {limits: api.Limits{Hosts: []string{"*", "*.example.com", "shop.example.com"}, IngressClasses: []string{"nginx"}, Gateways: []string{"gateways/public.v1"}}},
		"an identity":               {limits: api.Limits{ServiceAccountAnnotations: []string{"eks.amazonaws.com/role-arn"}}},
		"an annotation of ours":     {limits: api.Limits{ServiceAccountAnnotations: []string{api.AnnotationVirtualName}}, where: "serviceAccountAnnotations", says: "own"},
		"an annotation with two /":  {limits: api.Limits{ServiceAccountAnnotations: []string{"a/b/c"}}, where: "serviceAccountAnnotations"},
		"a host with a scheme":      {limits: api.Limits{Hosts: []string{"https://example.com"}}, where: "hosts", says: "*.example.com"},
		"a star in the middle":      {limits: api.Limits{Hosts: []string{"a.*.example.com"}}, where: "hosts"},
		"a star without a dot":      {limits: api.Limits{Hosts: []string{"*example.com"}}, where: "hosts"},
		"no host":                   {limits: api.Limits{Hosts: []string{""}}, where: "hosts"},
		"two hosts in one":          {limits: api.Limits{Hosts: []string{"a.example.com,b.example.com"}}, where: "hosts"},
		"an ingress class with a /": {limits: api.Limits{IngressClasses: []string{"a/b"}}, where: "ingressClasses"},
		"a gateway of nowhere":      {limits: api.Limits{Gateways: []string{"public"}}, where: "gateways", says: "NAMESPACE/NAME"},
		"custom resources":          {limits: api.Limits{CustomResources: []api.CustomResource{certificates(), custom("snapshot.storage.k8s.io", "VolumeSnapshot", "volumesnapshots", nil)}}},
		"a path without a dot": {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "things", func(r *api.CustomResource) {
			r.References = []api.CustomReference{{Path: "spec.secretName", Kind: "Secret"}}
		})}}, where: "customResources[0].references[0].path", says: "begins with a dot"},
		"a path with an index": {limits: api.Limits{CustomResources: []api.CustomResource{certificates(), custom("example.com", "Thing", "things", func(r *api.CustomResource) {
			r.HostPaths = []string{".spec.host", ".spec.hosts[0]"}
		})}}, where: "customResources[1].hostPaths[1]", says: "hosts[0]"},
		"a path into the status": {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "things", func(r *api.CustomResource) {
			r.NamespacePaths = []string{".status.namespace"}
		})}}, where: "namespacePaths[0]", says: ".status"},
		"a kind path elsewhere": {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "things", func(r *api.CustomResource) {
			r.References = []api.CustomReference{{Path: ".spec.ref.name", Kind: "Secret", KindPath: ".spec.kind"}}
		})}}, where: "references[0].kindPath", says: "same object"},
		"a Service from the host": {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "things", func(r *api.CustomResource) {
			r.References = []api.CustomReference{{Path: ".spec.name", Kind: "Service", From: api.FromHost}}
		})}}, where: "references[0].kind", says: "Secrets and ConfigMaps"},
		"a kind of Kubernetes' own": {limits: api.Limits{CustomResources: []api.CustomResource{custom("rbac.authorization.k8s.io", "Role", "roles", nil)}}, where: "customResources[0].group", says: "no group of custom resources"},
		"another one":               {limits: api.Limits{CustomResources: []api.CustomResource{custom("apps", "Deployment", "deployments", nil)}}, where: "customResources[0].group"},
		"one of ours":               {limits: api.Limits{CustomResources: []api.CustomResource{custom("sublet.dev", "Tenant", "tenants", nil)}}, where: "customResources[0].group"},
		"one that crosses anyway":   {limits: api.Limits{CustomResources: []api.CustomResource{custom("gateway.networking.k8s.io", "HTTPRoute", "httproutes", nil)}}, where: "customResources[0].resource", says: "leave it out"},
		"all resources":             {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "*", nil)}}, where: "customResources[0].resource"},
		"a subresource":             {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "Thing", "things/status", nil)}}, where: "customResources[0].resource"},
		"a kind that is none":       {limits: api.Limits{CustomResources: []api.CustomResource{custom("example.com", "thing", "things", nil)}}, where: "customResources[0].kind"},
		"a kind twice":              {limits: api.Limits{CustomResources: []api.CustomResource{certificates(), certificates()}}, where: "customResources[1]", says: "Certificate.cert-manager.io"},
		"a runtime class with a /":  {limits: api.Limits{RuntimeClass: "a/b"}, where: "runtimeClass"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			errs := tenancy.ValidateLimits(tenant(api.TenantSpec{Limits: &c.limits}))
			if c.where == "" {
				if len(errs) > 0 {
					t.Errorf("got %v", errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Field, c.where) || !strings.Contains(errs[0].Error(), c.says) {
				t.Errorf("got %v, want one about %q that says %q", errs, c.where, c.says)
			}
		})
	}
}

func TestValidateVirtualCluster(t *testing.T) {
	small := resource.MustParse("1Mi")
	cases := map[string]struct {
		spec  api.VirtualClusterSpec
		where string
	}{
		"nothing":            {},
		"the oldest":         {spec: api.VirtualClusterSpec{Version: "1.33"}},
		"older":              {spec: api.VirtualClusterSpec{Version: "1.32"}, where: "version"},
		"newer":              {spec: api.VirtualClusterSpec{Version: "1.99"}, where: "version"},
		"neither on nor off": {spec: api.VirtualClusterSpec{RuntimeConfig: map[string]string{"a/v1": "maybe"}}, where: "runtimeConfig"},
		"a tiny volume":      {spec: api.VirtualClusterSpec{Storage: &api.StorageSpec{Size: &small}}, where: "size"},
		"request above limit": {spec: api.VirtualClusterSpec{Resources: &corev1.ResourceRequirements{
			Requests: list("cpu", "2"), Limits: list("cpu", "1"),
		}}, where: "resources.requests"},
		"audit": {spec: api.VirtualClusterSpec{Audit: &api.AuditSpec{Rules: []api.AuditRule{{Level: "Metadata", Namespaces: []string{""}}}}}},
		"audit of a path and a resource at once": {spec: api.VirtualClusterSpec{Audit: &api.AuditSpec{Rules: []api.AuditRule{
			{Level: "None"},
			{Level: "Metadata", NonResourceURLs: []string{"/version"}, Resources: []api.AuditResources{{Resources: []string{"pods"}}}},
		}}}, where: "audit.rules[1]"},
		"audit by a webhook that cannot be verified": {spec: api.VirtualClusterSpec{Audit: &api.AuditSpec{
			Rules: []api.AuditRule{{Level: "Metadata"}}, Webhook: &api.AuditWebhook{URL: "https://audit.example.com", CABundle: []byte("none")},
		}}, where: "audit.webhook.caBundle"},
		"all nodes": {spec: api.VirtualClusterSpec{Nodes: &api.NodesSpec{}}},
		"nodes by a selector that cannot be": {spec: api.VirtualClusterSpec{Nodes: &api.NodesSpec{Selector: metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}},
		}}}, where: "nodes.selector"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			errs := tenancy.ValidateVirtualCluster(tenant(api.TenantSpec{VirtualCluster: &c.spec}))
			if (c.where == "") != (len(errs) == 0) || len(errs) > 1 || (len(errs) == 1 && !strings.Contains(errs[0].Field, c.where)) {
				t.Errorf("got %v", errs)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	if diff := cmp.Diff([]string{"1.33", "1.34", "1.35", "1.36"}, tenancy.Versions()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
