package controlplane

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/kubernetes/pkg/apis/core"
)

func compare(want, got any) string { return cmp.Diff(want, got) }

// recordingAllocator gives fixed values and remembers what it was asked.
type recordingAllocator struct {
	calls  int
	old    *corev1.Service
	dryRun bool
	name   string
	err    error
}

func (r *recordingAllocator) AllocateService(_ context.Context, svc, old *corev1.Service, dryRun bool) error {
	r.calls++
	r.old, r.dryRun, r.name = old, dryRun, svc.Namespace+"/"+svc.Name
	if r.err != nil {
		return r.err
	}
	svc.Spec.ClusterIP = "10.96.7.7"
	svc.Spec.ClusterIPs = []string{"10.96.7.7"}
	for i := range svc.Spec.Ports {
		svc.Spec.Ports[i].NodePort = 30000 + int32(i)
	}
	// Nothing else of it may get into the Service.
	svc.Labels = map[string]string{"from": "the host"}
	return nil
}

// TestGeneratedName: the host knows a Service by the name that is stored.
func TestGeneratedName(t *testing.T) {
	allocator := &recordingAllocator{}
	object := &core.Service{ObjectMeta: metav1.ObjectMeta{GenerateName: "web-"}}
	attributes := admission.NewAttributesRecord(object, nil, core.Kind("Service").WithVersion("v1"), "shop", "",
		schema.GroupVersionResource{Version: "v1", Resource: "services"}, "", admission.Create, nil, false, nil)
	if err := (servicePlugin{allocator: allocator}).Admit(t.Context(), attributes, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(object.Name, "web-") || object.Name == "web-" || allocator.name != "shop/"+object.Name {
		t.Errorf("the Service is %q, and the allocator was asked for %q", object.Name, allocator.name)
	}
}

func TestServicePlugin(t *testing.T) {
	service := func(name string) *core.Service {
		return &core.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       core.ServiceSpec{Type: core.ServiceTypeNodePort, Ports: []core.ServicePort{{Port: 80}, {Port: 81}}},
		}
	}
	at := func(version string) *core.Service {
		versioned := service("web")
		versioned.ResourceVersion = version
		return versioned
	}
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "services"}, "web", errors.New("taken"))
	cases := map[string]struct {
		reason      string
		resource    string
		subresource string
		namespace   string
		name        string
		object      *core.Service
		old         runtime.Object
		dryRun      bool
		err         error
		wantCalls   int
		wantIP      string
		wantErr     func(error) bool
	}{
		"Create": {
			reason:   "A new Service gets address and ports.",
			resource: "services", namespace: "shop", name: "web",
			wantCalls: 1, wantIP: "10.96.7.7",
		},
		"Update": {
			reason:   "A change may need others, so the old one is told.",
			resource: "services", namespace: "shop", name: "web", old: service("web"),
			wantCalls: 1, wantIP: "10.96.7.7",
		},
		"Stale": {
			reason:   "An update of an older version will be refused, so nobody is asked.",
			resource: "services", namespace: "shop", name: "web", object: at("1"), old: at("2"),
		},
		"DryRun": {
			reason:   "The allocator learns that nothing may be kept.",
			resource: "services", namespace: "shop", name: "web", dryRun: true,
			wantCalls: 1, wantIP: "10.96.7.7",
		},
		"Kubernetes": {
			reason:   "The API server's own Service is not the host's.",
			resource: "services", namespace: "default", name: "kubernetes",
		},
		"Status": {
			reason:   "A status has no address.",
			resource: "services", subresource: "status", namespace: "shop", name: "web", old: service("web"),
		},
		"OtherKind": {
			reason:   "Other kinds pass.",
			resource: "pods", namespace: "shop", name: "web",
		},
		"HostSaysNo": {
			reason:   "What the host's API answers is passed on as it is.",
			resource: "services", namespace: "shop", name: "web", err: conflict,
			wantCalls: 1, wantErr: apierrors.IsConflict,
		},
		"HostAway": {
			reason:   "Without the host there is no address, and the request is refused.",
			resource: "services", namespace: "shop", name: "web", err: errors.New("connection refused"),
			wantCalls: 1, wantErr: apierrors.IsForbidden,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			allocator := &recordingAllocator{err: tc.err}
			plugins := admission.NewPlugins()
			registerServicePlugin(plugins, allocator)
			plugin, err := plugins.InitPlugin(servicePluginName, nil, admission.PluginInitializers{})
			if err != nil {
				t.Fatal(err)
			}
			operation := admission.Create
			if tc.old != nil {
				operation = admission.Update
			}
			object := service(tc.name)
			if tc.object != nil {
				object = tc.object
			}
			attributes := admission.NewAttributesRecord(object, tc.old, core.Kind("Service").WithVersion("v1"), tc.namespace, tc.name,
				schema.GroupVersionResource{Version: "v1", Resource: tc.resource}, tc.subresource, operation, nil, tc.dryRun, nil)

			err = plugin.(admission.MutationInterface).Admit(t.Context(), attributes, nil)
			if tc.wantErr != nil {
				if !tc.wantErr(err) {
					t.Errorf("%s\nAdmit() = %v", tc.reason, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s\nAdmit() = %v", tc.reason, err)
			}
			if allocator.calls != tc.wantCalls {
				t.Errorf("%s\nthe allocator was asked %d times, want %d", tc.reason, allocator.calls, tc.wantCalls)
			}
			want := service(tc.name)
			want.ResourceVersion = object.ResourceVersion
			if tc.wantIP != "" {
				want.Spec.ClusterIP = tc.wantIP
				want.Spec.ClusterIPs = []string{tc.wantIP}
				want.Spec.Ports[0].NodePort = 30000
				want.Spec.Ports[1].NodePort = 30001
				if allocator.dryRun != tc.dryRun || (allocator.old != nil) != (tc.old != nil) || allocator.name != "shop/web" {
					t.Errorf("%s\nthe allocator was told %+v", tc.reason, allocator)
				}
			}
			if diff := compare(want, object); diff != "" {
				t.Errorf("%s\nAdmit() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// takenAllocator knows some names already.
type takenAllocator struct{ tries, taken int }

func (a *takenAllocator) AllocateService(_ context.Context, svc, _ *corev1.Service, _ bool) error {
	a.tries++
	if a.tries <= a.taken {
		return apierrors.NewAlreadyExists(corev1.Resource("services"), svc.Name)
	}
	return nil
}

// TestServicePluginGeneratesNames: the host's Service has the name of the
// tenant's, so that must be known in time.
func TestServicePluginGeneratesNames(t *testing.T) {
	for reason, tc := range map[string]struct {
		allocator takenAllocator
		want      func(error) bool
	}{
		"a new name":              {allocator: takenAllocator{}},
		"the third name is new":   {allocator: takenAllocator{taken: 2}},
		"it is not tried forever": {allocator: takenAllocator{taken: 1000}, want: apierrors.IsAlreadyExists},
	} {
		t.Run(reason, func(t *testing.T) {
			service := &core.Service{ObjectMeta: metav1.ObjectMeta{GenerateName: "web-"}}
			attributes := admission.NewAttributesRecord(service, nil, core.Kind("Service").WithVersion("v1"), "shop", "",
				schema.GroupVersionResource{Version: "v1", Resource: "services"}, "", admission.Create, nil, false, nil)
			err := servicePlugin{allocator: &tc.allocator}.Admit(t.Context(), attributes, nil)
			if tc.want != nil {
				if !tc.want(err) {
					t.Errorf("Admit() = %v", err)
				}
				return
			}
			if err != nil || len(service.Name) != len("web-")+5 {
				t.Errorf("Admit() = %v, name %q", err, service.Name)
			}
		})
	}
}
