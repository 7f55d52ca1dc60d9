package kinds_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestEndpointSliceFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         discoveryv1.EndpointSlice{},
			copied:     []string{"AddressType", "Ports"},
			translated: []string{"ObjectMeta", "Endpoints"},
			dropped:    []string{"TypeMeta"},
		},
		{
			of:         discoveryv1.Endpoint{},
			copied:     []string{"Conditions", "Hostname", "NodeName", "Zone", "Hints"},
			translated: []string{"TargetRef", "Addresses"},
			dropped:    []string{"DeprecatedTopology"},
		},
	})
}

func FuzzEndpointSlice(f *testing.F) {
	fuzzToHost(f, kinds.EndpointSlice(), func(t *testing.T, in translate.Input[translate.Object]) {
		virtual := in.Virtual.DeepCopyObject().(*discoveryv1.EndpointSlice)
		virtual.Labels[discoveryv1.LabelServiceName] = "service"
		service := &corev1.Service{}
		service.Namespace, service.Name = virtual.Namespace, "service"
		host, err := kinds.EndpointSlice().ToHost(translate.Input[*discoveryv1.EndpointSlice]{
			Tenant: in.Tenant, Virtual: virtual, Refs: translate.Objects{Virtual: []translate.Object{service}},
		})
		if err != nil {
			t.Fatal(err)
		}
		checkHostObject(t, translate.Input[translate.Object]{Tenant: in.Tenant, Virtual: virtual}, host)
		if got, want := host.Labels[discoveryv1.LabelServiceName], translate.HostName(virtual.Namespace, "service"); got != want {
			t.Fatalf("the slice belongs to Service %q, want %q", got, want)
		}
		for _, endpoint := range host.Endpoints {
			if target := endpoint.TargetRef; target != nil && (target.Namespace != in.Tenant.HostNamespace || target.Kind != "Pod") {
				t.Fatalf("target %v leaves the tenant", target)
			}
		}
	})
}

func TestEndpointSliceAddresses(t *testing.T) {
	tests := map[string]struct {
		address string
		refused bool
	}{
		"a pod":                  {"10.244.1.7", false},
		"a public address":       {"93.184.215.14", false},
		"IPv6":                   {"2001:db8::7", false},
		"a name":                 {"db.example.com", false},
		"loopback":               {"127.0.0.53", true},
		"IPv6 loopback":          {"::1", true},
		"IPv4 in IPv6 loopback":  {"::ffff:127.0.0.1", true},
		"metadata of most":       {"169.254.169.254", true},
		"metadata of AWS, IPv6":  {"fd00:ec2::254", true},
		"metadata of Azure":      {"168.63.129.16", true},
		"metadata of Alibaba":    {"100.100.100.200", true},
		"metadata in IPv6 guise": {"::ffff:169.254.169.254", true},
		"link-local IPv6":        {"fe80::1", true},
		"unspecified":            {"0.0.0.0", true},
		"multicast":              {"224.0.0.1", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			slice := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{test.address}}}}
			slice.Namespace, slice.Name = "default", "slice"
			slice.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
			service := &corev1.Service{}
			service.Namespace, service.Name = "default", "web"
			_, err := kinds.EndpointSlice().ToHost(translate.Input[*discoveryv1.EndpointSlice]{
				Tenant:  translate.NewTenant(testTenant(), testOwner()),
				Virtual: slice,
				Refs:    translate.Objects{Virtual: []translate.Object{service}},
			})
			if (err != nil) != test.refused {
				t.Errorf("address %q: got error %v, want one: %v", test.address, err, test.refused)
			}
		})
	}
}
