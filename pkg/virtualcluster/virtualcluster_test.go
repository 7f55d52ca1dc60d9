package virtualcluster_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func effective(spec api.TenantSpec) tenancy.Effective {
	spec.Type = api.VirtualCluster
	return tenancy.Of(&api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1234"}, Spec: spec})
}

func addresses() virtualcluster.Addresses {
	return virtualcluster.Addresses{ServiceCIDRs: []string{"10.96.0.0/16"}, APIServiceIP: "10.96.3.3", DNSServiceIP: "10.96.3.4"}
}

func TestGolden(t *testing.T) {
	class := "fast"
	cases := map[string]struct {
		spec    api.TenantSpec
		storage virtualcluster.Storage
	}{
		"default": {
			storage: virtualcluster.Storage{Type: api.StoragePVC, Size: resource.MustParse("2Gi")},
		},
		"emptydir": {
			spec:    api.TenantSpec{VirtualCluster: &api.VirtualClusterSpec{Storage: &api.StorageSpec{Type: api.StorageEmptyDir}}},
			storage: virtualcluster.Storage{Type: api.StorageEmptyDir, Size: resource.MustParse("2Gi")},
		},
		"everything": {
			spec: api.TenantSpec{
				Members: []api.Member{{Kind: "User", Name: "jane", Role: api.RoleAdmin}},
				Limits: &api.Limits{
					PodSecurity: api.PodSecurityRestricted, Services: []corev1.ServiceType{"LoadBalancer", "ClusterIP"},
					StorageClasses: []string{"fast"}, RuntimeClass: "gvisor", NodeSelector: map[string]string{"pool": "gpu"},
				},
				VirtualCluster: &api.VirtualClusterSpec{
					Version: "1.34", FeatureGates: map[string]bool{"A": true}, RuntimeConfig: map[string]string{"x/v1": "false"},
					Resources: &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}},
					Profiling: true,
				},
			},
			storage: virtualcluster.Storage{Type: api.StoragePVC, Class: &class, Size: resource.MustParse("8Gi")},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := effective(c.spec)
			config := virtualcluster.Config(e, addresses())
			configMap, err := virtualcluster.ConfigMap(e, config)
			if err != nil {
				t.Fatal(err)
			}
			set, err := virtualcluster.StatefulSet(e, virtualcluster.Spec{Image: "example.com/subletd:1", Config: config, Storage: c.storage})
			if err != nil {
				t.Fatal(err)
			}
			objects := []virtualcluster.Object{virtualcluster.APIService(e), virtualcluster.DNSService(e)}
			objects = append(objects, virtualcluster.ServiceAccounts(e)...)
			objects = append(objects, virtualcluster.Bindings(e, metav1.OwnerReference{Kind: "Tenant", Name: "acme", UID: "1234"})...)
			objects = append(objects,
				virtualcluster.PKISecret(e, map[string][]byte{"ca.crt": []byte("cert")}),
				virtualcluster.KubeconfigSecret(e, api.RoleView, []byte("kubeconfig"), time.Unix(0, 0)),
				configMap, set)
			golden(t, name, objects)
		})
	}
}

func golden(t *testing.T, name string, objects []virtualcluster.Object) {
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

func statefulSet(t *testing.T, spec api.TenantSpec) *appsv1.StatefulSet {
	t.Helper()
	e := effective(spec)
	set, err := virtualcluster.StatefulSet(e, virtualcluster.Spec{
		Image: "i", Config: virtualcluster.Config(e, addresses()), Storage: virtualcluster.Storage{Type: api.StorageEmptyDir},
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestWhatRestarts(t *testing.T) {
	before := statefulSet(t, api.TenantSpec{})
	cases := map[string]struct {
		spec    api.TenantSpec
		restart bool
	}{
		"members": {spec: api.TenantSpec{Members: []api.Member{{Kind: "User", Name: "jane", Role: api.RoleEdit}}}},
		"a quota": {spec: api.TenantSpec{Limits: &api.Limits{Quota: corev1.ResourceList{"limits.memory": resource.MustParse("1Gi")}}}},
		"the network": {spec: api.TenantSpec{Limits: &api.Limits{
			Network: &api.NetworkLimits{Internet: "Deny"},
		}}},
		"Pod Security": {spec: api.TenantSpec{Limits: &api.Limits{PodSecurity: api.PodSecurityRestricted}}, restart: true},
		"the version":  {spec: api.TenantSpec{VirtualCluster: &api.VirtualClusterSpec{Version: "1.33"}}, restart: true},
		"feature gates": {spec: api.TenantSpec{VirtualCluster: &api.VirtualClusterSpec{
			FeatureGates: map[string]bool{"A": true},
		}}, restart: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			after := statefulSet(t, c.spec)
			if restart := cmp.Diff(before.Spec.Template, after.Spec.Template) != ""; restart != c.restart {
				t.Errorf("restart is %v", restart)
			}
		})
	}
}

// TestRestricted holds the control plane's pod to the level of the Pod Security
// Standards that its namespace may enforce.
func TestRestricted(t *testing.T) {
	pod := statefulSet(t, api.TenantSpec{}).Spec.Template.Spec
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("it shares something with the node")
	}
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %+v", s)
	}
	for _, volume := range pod.Volumes {
		if volume.ConfigMap == nil && volume.Secret == nil && volume.EmptyDir == nil {
			t.Errorf("volume %s is of a kind that restricted refuses", volume.Name)
		}
	}
	for _, container := range pod.Containers {
		s := container.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || len(s.Capabilities.Add) > 0 {
			t.Errorf("the container's security context is %+v", s)
		}
	}
}

func TestNeeds(t *testing.T) {
	class := "fast"
	e := effective(api.TenantSpec{})
	without := virtualcluster.Needs(e, virtualcluster.Storage{Type: api.StorageEmptyDir})
	if _, ok := without[corev1.ResourceRequestsStorage]; ok {
		t.Error("a control plane without a volume needs storage")
	}
	with := virtualcluster.Needs(e, virtualcluster.Storage{Type: api.StoragePVC, Class: &class, Size: resource.MustParse("2Gi")})
	for _, name := range []corev1.ResourceName{"requests.storage", "fast.storageclass.storage.k8s.io/requests.storage"} {
		if q := with[name]; q.String() != "2Gi" {
			t.Errorf("%s is %s", name, q.String())
		}
	}
}
