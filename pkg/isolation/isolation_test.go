package isolation_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func host() isolation.Host {
	return isolation.Host{
		SystemNamespace:      api.SystemNamespace,
		IngressNamespaces:    []string{"ingress-nginx"},
		APIServers:           []isolation.Endpoint{{IP: "192.168.1.10", Port: 6443}, {IP: "198.41.0.4", Port: 443}},
		APIServiceIPs:        []string{"10.96.0.1"},
		DefaultPriorityClass: "normal",
		PodRanges:            []string{"10.244.0.0/24", "2600:1f18::/64"},
		Ranges:               []string{"10.96.0.0/16", "10.244.0.0/24", "192.168.1.10/32", "198.41.0.4/32", "2600:1f18::/56"},
	}
}

func quota(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func TestGolden(t *testing.T) {
	cases := map[string]api.TenantSpec{
		"virtualcluster":   {Type: api.VirtualCluster},
		"namespace":        {Type: api.Namespace},
		"namespace-quota":  {Type: api.Namespace, Limits: &api.Limits{Quota: quota("requests.cpu", "4", "limits.memory", "8Gi", "pods", "20", "services", "5", "count/deployments.apps", "10")}},
		"services-allowed": {Type: api.Namespace, Limits: &api.Limits{Services: []corev1.ServiceType{"LoadBalancer", "ClusterIP"}}},
		"nodeport-allowed": {Type: api.Namespace, Limits: &api.Limits{Services: []corev1.ServiceType{"NodePort"}}},
		"closed": {Type: api.VirtualCluster, Limits: &api.Limits{
			PodSecurity: api.PodSecurityRestricted,
			Network:     &api.NetworkLimits{Internet: "Deny", AllowedCIDRs: []string{"10.1.0.0/16", "2001:db8:1::/48"}},
		}},
		"virtualcluster-quota": {Type: api.VirtualCluster, Limits: &api.Limits{Quota: quota("requests.cpu", "4", "pods", "20", "services", "5", "secrets", "10", "requests.storage", "10Gi")}},
		"hosts": {Type: api.Namespace, Limits: &api.Limits{
			Hosts: []string{"*.shop.example.com", "example.com"}, IngressClasses: []string{"nginx"}, Gateways: []string{"gateways/public"},
		}},
		"pods": {Type: api.Namespace, Limits: &api.Limits{
			NodeSelector: map[string]string{"pool": "gpu", "example.com/zone": "a"}, RuntimeClass: "gvisor", RuntimeClasses: []string{"kata"},
			PriorityClasses: []string{"low"}, StorageClasses: []string{"fast", "archive"}, Tolerations: []corev1.Toleration{
				{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule},
				{Key: "spot", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
			},
		}},
		"virtualcluster-customresources": {Type: api.VirtualCluster, Limits: &api.Limits{CustomResources: []api.CustomResource{
			{Group: "cert-manager.io", Version: "v1", Kind: "Issuer", Resource: "issuers"},
			{Group: "cert-manager.io", Version: "v1", Kind: "Certificate", Resource: "certificates"},
			{Group: "acme.example.com", Version: "v1", Kind: "Thing", Resource: "things"},
		}}},
		"namespace-customresources": {Type: api.Namespace, Limits: &api.Limits{CustomResources: []api.CustomResource{
			{Group: "acme.example.com", Version: "v1", Kind: "Thing", Resource: "things"},
		}}},
		"namespace-templates": {Type: api.Namespace, Templates: []api.TemplateRef{{Name: "baseline"}}},
		"virtualcluster-members": {Type: api.VirtualCluster, Members: []api.Member{
			{Kind: "User", Name: "jane", Role: api.RoleAdmin},
			{Kind: "Group", Name: "team", Role: api.RoleEdit},
			{Kind: "ServiceAccount", Name: "ci", Namespace: "build", Role: api.RoleEdit},
		}},
		"namespace-members": {Type: api.Namespace, Members: []api.Member{
			{Kind: "User", Name: "jane", Role: api.RoleAdmin},
			{Kind: "User", Name: "jane", Role: api.RoleView},
			{Kind: "Group", Name: "team", Role: api.RoleView},
			{Kind: "Group", Name: "team", Role: api.RoleView},
		}},
	}
	for name, spec := range cases {
		t.Run(name, func(t *testing.T) {
			e := tenancy.Of(&api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1234"}, Spec: spec})
			in := isolation.Input{Tenant: e, Host: host(), Templates: len(e.Templates) > 0}
			if e.Type == api.VirtualCluster {
				in.ControlPlane = quota("services", "2", "secrets", "4", "requests.storage", "2Gi")
			}
			objects := []isolation.Object{isolation.Namespace(e, host())}
			objects = append(objects, isolation.Objects(in)...)
			objects = append(objects, isolation.Access(in)...)
			objects = append(objects, isolation.SyncerAccess(in)...)
			golden(t, name, objects)
		})
	}
}

func golden(t *testing.T, name string, objects []isolation.Object) {
	t.Helper()
	var out strings.Builder
	for _, object := range objects {
		content, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n" + string(content))
	}
	path := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("(-want +got); run with -update if that is meant:\n%s", diff)
	}
}

// TestEverythingIsLabelled holds what pruning and the admission policies go by.
func TestEverythingIsLabelled(t *testing.T) {
	for _, kind := range []api.TenantType{api.VirtualCluster, api.Namespace} {
		e := tenancy.Of(&api.Tenant{
			ObjectMeta: metav1.ObjectMeta{Name: "acme"},
			Spec:       api.TenantSpec{Type: kind, Members: []api.Member{{Kind: "User", Name: "jane", Role: api.RoleEdit}}},
		})
		in := isolation.Input{Tenant: e, Host: host()}
		for _, object := range append(isolation.Objects(in), isolation.Access(in)...) {
			if diff := cmp.Diff(isolation.Labels("acme"), object.GetLabels()); diff != "" {
				t.Errorf("%T %s (-want +got):\n%s", object, object.GetName(), diff)
			}
		}
	}
}

// TestInternetIsPublicOnly asks about addresses that must be out of reach.
func TestInternetIsPublicOnly(t *testing.T) {
	e := tenancy.Of(&api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: api.TenantSpec{Type: api.Namespace}})
	var blocks []*networkingv1.IPBlock
	for _, object := range isolation.Objects(isolation.Input{Tenant: e, Host: host()}) {
		if policy, ok := object.(*networkingv1.NetworkPolicy); ok && policy.Name == api.FenceEgressPolicy {
			for _, peer := range policy.Spec.Egress[0].To {
				blocks = append(blocks, peer.IPBlock)
			}
		}
	}
	reachable := func(address string) bool {
		ip := netip.MustParseAddr(address)
		for _, block := range blocks {
			if !netip.MustParsePrefix(block.CIDR).Contains(ip) {
				continue
			}
			for _, except := range block.Except {
				prefix := netip.MustParsePrefix(except)
				if whole := netip.MustParsePrefix(block.CIDR); !whole.Contains(prefix.Addr()) || whole.Bits() >= prefix.Bits() {
					t.Errorf("%s is not within %s: the API server refuses that", except, block.CIDR)
				}
				if prefix.Contains(ip) {
					return false
				}
			}
			return true
		}
		return false
	}
	for address, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700::1111": true,
		"10.0.0.1": false, "172.20.0.1": false, "192.168.7.7": false, "100.64.1.1": false,
		"169.254.169.254": false, "fd00:ec2::254": false, "fe80::1": false, "127.0.0.1": false, "::1": false,
		"198.41.0.4": false, "2600:1f18::5": false, "10.96.0.1": false,
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s: reachable is %v", address, got)
		}
	}
}
