package syncer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// reference is a namespace of the host that has nothing to do with the tenant:
// what an API server does there, the tenant's has to do, too.
const reference = "reference"

// TestServices compares what becomes of a Service in the tenant with what
// becomes of the same one straight on a cluster.
func TestServices(t *testing.T) {
	p := startPlanesWith(t, planesOptions{config: func(c *api.ControlPlaneConfig) {
		c.Services = []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}
	}})
	if _, err := p.host.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: reference}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Run("types", p.testServiceTypes)
	t.Run("fields", p.testServiceFields)
	t.Run("refused", p.testServiceRefused)
	t.Run("generated names", p.testServiceGeneratedNames)
	t.Run("rollback", p.testServiceRollback)
	t.Run("update fails", p.testServiceUpdateFails)
	t.Run("reuse", p.testServiceReuse)
	t.Run("status", p.testServiceStatus)
	t.Run("edited on the host", p.testServiceEditedOnHost)
	t.Run("endpoints", p.testServiceEndpoints)
	t.Run("addresses", p.testServiceAddresses)
}

// twins are a Service in the tenant and one of the same kind on the host.
type twins struct {
	*planes
	name string
}

func (w twins) virtual() corev1client.ServiceInterface {
	return w.planes.virtual.CoreV1().Services(space)
}
func (w twins) direct() corev1client.ServiceInterface {
	return w.planes.host.CoreV1().Services(reference)
}

// onHost is the host Service of the virtual one.
func (w twins) onHost(ctx context.Context) (*corev1.Service, error) {
	return w.planes.host.CoreV1().Services(hostNamespace).Get(ctx, translate.HostName(space, w.name), metav1.GetOptions{})
}

// both does the same to both and compares what comes of it. Node ports that are
// asked for as 319.. are 318.. in the tenant, as both come from the host.
func (w twins) both(t *testing.T, what string, do func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error)) (*corev1.Service, error) {
	t.Helper()
	want, wantErr := do(w.direct(), func(text string) string { return text })
	got, gotErr := do(w.virtual(), func(text string) string { return strings.ReplaceAll(text, ":319", ":318") })
	if diff := cmp.Diff(said(wantErr), said(gotErr)); diff != "" {
		t.Errorf("%s: error (-cluster +tenant):\n%s", what, diff)
	}
	if want != nil && got != nil && wantErr == nil && gotErr == nil {
		if diff := cmp.Diff(plain(want.Spec), plain(got.Spec)); diff != "" {
			t.Errorf("%s (-cluster +tenant):\n%s", what, diff)
		}
	}
	return got, gotErr
}

var variable = regexp.MustCompile(`10\.96\.\d+\.\d+|\b3[0-2]\d\d\d\b`)

// said is an error without addresses and ports, which differ.
func said(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%s: %s", apierrors.ReasonForError(err), variable.ReplaceAllString(err.Error(), "N"))
}

// plain replaces what is allocated by whether it is.
func plain(spec corev1.ServiceSpec) corev1.ServiceSpec {
	spec = *spec.DeepCopy()
	address := func(ip string) string { return variable.ReplaceAllString(ip, "N") }
	spec.ClusterIP = address(spec.ClusterIP)
	for i := range spec.ClusterIPs {
		spec.ClusterIPs[i] = address(spec.ClusterIPs[i])
	}
	for i := range spec.Ports {
		spec.Ports[i].NodePort = min(spec.Ports[i].NodePort, 1)
	}
	spec.HealthCheckNodePort = min(spec.HealthCheckNodePort, 1)
	return spec
}

// agree waits until the host Service is what the virtual one says, as far as
// both know it, and the virtual one has the host's addresses.
func (w twins) agree(t *testing.T, what string) {
	t.Helper()
	eventually(t, what+": both sides agree", func(ctx context.Context) error {
		virtual, err := w.virtual().Get(ctx, w.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		host, err := w.onHost(ctx)
		if virtual.Spec.Type == corev1.ServiceTypeExternalName {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("the host still has it (%v)", err)
		}
		if err != nil {
			return err
		}
		if uid := host.Annotations[api.AnnotationVirtualUID]; uid != string(virtual.UID) {
			return fmt.Errorf("the host's is for uid %q", uid)
		}
		want, got := virtual.Spec.DeepCopy(), host.Spec.DeepCopy()
		want.ExternalName = "" // A remnant.
		delete(got.Selector, api.LabelTenant)
		delete(got.Selector, api.LabelVirtualNamespace)
		if len(got.Selector) == 0 {
			got.Selector = want.Selector
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("-tenant +host:\n%s", diff)
		}
		return nil
	})
}

func (w twins) remove(t *testing.T) {
	t.Helper()
	for _, services := range []corev1client.ServiceInterface{w.virtual(), w.direct()} {
		if err := services.Delete(t.Context(), w.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}

// form is a way to be a Service.
type form struct {
	name   string
	spec   string // merge patch of the spec
	onHost bool
}

func forms() []form {
	return []form{
		{"ClusterIP", `{"type":"ClusterIP"}`, true},
		{"NodePort", `{"type":"NodePort"}`, true},
		{"LoadBalancer", `{"type":"LoadBalancer"}`, true},
		{"ExternalName", `{"type":"ExternalName","externalName":"example.com"}`, false},
		{"headless", `{"type":"ClusterIP","clusterIP":"None","clusterIPs":["None"]}`, true},
	}
}

func newService(name, spec string) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("http")},
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
			},
		},
	}
	if err := json.Unmarshal([]byte(spec), &service.Spec); err != nil {
		panic(err)
	}
	return service
}

// testServiceTypes changes each form of Service into each other one, as
// clients do it: only what is meant to change, or, to get away from a name,
// also without what no longer belongs.
func (p *planes) testServiceTypes(t *testing.T) {
	for _, from := range forms() {
		for _, to := range forms() {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				w := twins{p, "types"}
				w.both(t, "create "+from.name, func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
					return services.Create(t.Context(), newService(w.name, from.spec), metav1.CreateOptions{})
				})
				defer w.remove(t)
				w.both(t, "change to "+to.name, func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
					return services.Patch(t.Context(), w.name, types.MergePatchType, []byte(`{"spec":`+to.spec+`}`), metav1.PatchOptions{})
				})
				w.both(t, "change to "+to.name+" without address", func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
					return services.Patch(t.Context(), w.name, types.MergePatchType, []byte(`{"spec":{"clusterIP":"","clusterIPs":null}}`), metav1.PatchOptions{})
				})
				w.agree(t, from.name+" to "+to.name)
				w.both(t, "change back", func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
					return services.Patch(t.Context(), w.name, types.MergePatchType, []byte(`{"spec":`+from.spec+`}`), metav1.PatchOptions{})
				})
				w.agree(t, "back to "+from.name)
			})
		}
	}
}

// testServiceFields changes one field after the other.
func (p *planes) testServiceFields(t *testing.T) {
	for kind, steps := range map[string][]string{
		`{"type":"ClusterIP"}`: {
			`{"sessionAffinity":"ClientIP"}`,
			`{"sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}}}`,
			`{"sessionAffinity":"None","sessionAffinityConfig":null}`,
			`{"internalTrafficPolicy":"Local"}`,
			`{"internalTrafficPolicy":"Cluster"}`,
			`{"publishNotReadyAddresses":true}`,
			`{"publishNotReadyAddresses":false}`,
			`{"trafficDistribution":"PreferClose"}`,
			`{"trafficDistribution":"PreferSameNode"}`,
			`{"trafficDistribution":null}`,
			`{"selector":{"app":"db","tier":"back"}}`,
			`{"selector":null}`,
			`{"selector":{"app":"web"}}`,
			`{"ports":[{"name":"http","port":8080,"targetPort":9090}]}`,
			`{"ports":[{"name":"web","port":80,"targetPort":"http","appProtocol":"kubernetes.io/h2c"},{"name":"sctp","port":99,"protocol":"SCTP"}]}`,
			`{"ports":[{"port":80}]}`,
			`{"ipFamilyPolicy":"PreferDualStack"}`,
			`{"ipFamilyPolicy":"SingleStack"}`,
		},
		`{"type":"NodePort"}`: {
			`{"ports":[{"name":"http","port":80,"nodePort":31999},{"name":"dns","port":53,"protocol":"UDP"}]}`,
			`{"ports":[{"name":"http","port":80,"nodePort":31999},{"name":"dns","port":53,"protocol":"UDP","nodePort":31999}]}`,
			`{"ports":[{"name":"other","port":81},{"name":"dns","port":53,"protocol":"UDP"}]}`,
			`{"externalTrafficPolicy":"Local"}`,
			`{"externalTrafficPolicy":"Cluster"}`,
			`{"sessionAffinity":"ClientIP"}`,
		},
		`{"type":"LoadBalancer","loadBalancerClass":"example.com/lb"}`: {
			`{"loadBalancerSourceRanges":["192.0.2.0/24"]}`,
			`{"loadBalancerSourceRanges":null}`,
			`{"externalTrafficPolicy":"Local"}`,
			`{"externalTrafficPolicy":"Cluster"}`,
			`{"externalTrafficPolicy":"Local","healthCheckNodePort":31998}`,
			`{"externalTrafficPolicy":"Cluster","healthCheckNodePort":0}`,
			`{"loadBalancerIP":"192.0.2.1"}`,
			`{"allocateLoadBalancerNodePorts":false}`,
			`{"ports":[{"name":"http","port":80,"nodePort":0},{"name":"dns","port":53,"protocol":"UDP","nodePort":0}]}`,
			`{"allocateLoadBalancerNodePorts":true}`,
			`{"type":"ClusterIP","loadBalancerIP":""}`,
		},
	} {
		t.Run(kind, func(t *testing.T) {
			w := twins{p, "fields"}
			w.both(t, "create", func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
				return services.Create(t.Context(), newService(w.name, kind), metav1.CreateOptions{})
			})
			defer w.remove(t)
			for _, step := range steps {
				for _, dryRun := range [][]string{{metav1.DryRunAll}, nil} {
					w.both(t, step, func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
						made, err := services.Patch(t.Context(), w.name, types.MergePatchType, []byte(text(`{"spec":`+step+`}`)), metav1.PatchOptions{DryRun: dryRun})
						return made, err
					})
					w.agree(t, step)
				}
			}
		})
	}
}

// testServiceRefused: what a cluster refuses, in the same words.
func (p *planes) testServiceRefused(t *testing.T) {
	w := twins{p, "refused"}
	create := func(spec string) func(corev1client.ServiceInterface, func(string) string) (*corev1.Service, error) {
		return func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
			return services.Create(t.Context(), newService(w.name, spec), metav1.CreateOptions{})
		}
	}
	for what, spec := range map[string]string{
		"an address beyond the range":   `{"clusterIP":"192.0.2.1"}`,
		"no address":                    `{"clusterIP":"abc"}`,
		"a node port beyond the range":  `{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}`,
		"both families":                 `{"ipFamilyPolicy":"RequireDualStack"}`,
		"the other family":              `{"ipFamilies":["IPv6"]}`,
		"two ports of one name":         `{"ports":[{"name":"a","port":80},{"name":"a","port":81}]}`,
		"two node ports that are one":   `{"type":"NodePort","ports":[{"name":"a","port":80,"nodePort":31000},{"name":"b","port":81,"nodePort":31000}]}`,
		"no ports":                      `{"ports":[]}`,
		"an unknown type":               `{"type":"Magic"}`,
		"a policy that does not belong": `{"externalTrafficPolicy":"Local"}`,
		"a class that does not belong":  `{"loadBalancerClass":"example.com/lb"}`,
		"an affinity without meaning":   `{"sessionAffinity":"Node"}`,
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := w.virtual().Create(t.Context(), newService(w.name, spec), metav1.CreateOptions{}); what == "an unknown type" {
				// Our limits are asked first.
				if err == nil {
					t.Error("an unknown type is taken")
				}
				return
			}
			if _, err := w.both(t, what, create(spec)); err == nil {
				t.Errorf("%s is taken", what)
			}
		})
	}
	// What somebody else has.
	other, err := p.host.CoreV1().Services(reference).Create(t.Context(), newService("other", `{"type":"NodePort"}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.both(t, "an address that is taken", create(`{"clusterIP":"`+other.Spec.ClusterIP+`"}`))
	w.both(t, "a node port that is taken", create(fmt.Sprintf(`{"type":"NodePort","ports":[{"port":80,"nodePort":%d}]}`, other.Spec.Ports[0].NodePort)))
	w.both(t, "create", create(`{"type":"NodePort"}`))
	defer w.remove(t)
	for what, change := range map[string]string{
		"another address":           `{"clusterIP":"10.96.77.77"}`,
		"a node port that is taken": fmt.Sprintf(`{"ports":[{"name":"http","port":80,"nodePort":%d}]}`, other.Spec.Ports[0].NodePort),
		"both families":             `{"ipFamilyPolicy":"RequireDualStack"}`,
		"headless":                  `{"clusterIP":"None"}`,
	} {
		if _, err := w.both(t, what, func(services corev1client.ServiceInterface, text func(string) string) (*corev1.Service, error) {
			return services.Patch(t.Context(), w.name, types.MergePatchType, []byte(`{"spec":`+change+`}`), metav1.PatchOptions{})
		}); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	w.agree(t, "after all that was refused")
}

func (p *planes) testServiceGeneratedNames(t *testing.T) {
	names := map[string]bool{}
	for range 3 {
		service := newService("", `{}`)
		service.GenerateName = "made-"
		made, err := p.virtual.CoreV1().Services(space).Create(t.Context(), service, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		names[made.Name] = true
		w := twins{p, made.Name}
		w.agree(t, "with a generated name")
		w.remove(t)
		gone(t, "host Service", w.onHost)
	}
	if len(names) != 3 {
		t.Errorf("names: %v", names)
	}
}

// testServiceRollback: of a Service that the tenant's API refuses after the
// host has made it, nothing stays.
func (p *planes) testServiceRollback(t *testing.T) {
	ctx := t.Context()
	quotas := p.virtual.CoreV1().ResourceQuotas(space)
	if _, err := quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceServices: resource.MustParse("0")}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := quotas.Delete(context.Background(), "none", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	waitFor(t, "quota counts", func(ctx context.Context) (*corev1.ResourceQuota, error) {
		return quotas.Get(ctx, "none", metav1.GetOptions{})
	}, func(q *corev1.ResourceQuota) bool { return len(q.Status.Hard) > 0 })
	w := twins{p, "rollback"}
	p.hostWrites.reset()
	if _, err := w.virtual().Create(ctx, newService(w.name, `{"type":"NodePort"}`), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("against the quota: %v", err)
	}
	// Half of the time after which what nobody asks for is collected.
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		_, err := w.onHost(ctx)
		if apierrors.IsNotFound(err) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the host still has it: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if wrote := p.hostWrites.reset(); wrote["POST services"] != 1 || wrote["DELETE services"] != 1 {
		t.Errorf("on the host: %v, want one Service made and deleted", wrote)
	}
}

// testServiceUpdateFails: a change that the tenant's API refuses after the host
// has made it is taken back there.
func (p *planes) testServiceUpdateFails(t *testing.T) {
	ctx := t.Context()
	w := twins{p, "fails"}
	made, err := w.virtual().Create(ctx, newService(w.name, `{}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.remove(t)
	w.agree(t, "made")

	stale := made.DeepCopy()
	stale.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	stale.ResourceVersion = "1"
	p.hostWrites.reset()
	if _, err := w.virtual().Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	if wrote := p.hostWrites.reset(); len(wrote) > 0 {
		t.Errorf("an update of an old version wrote on the host: %v", wrote)
	}

	// A finalizer that is no name passes admission, and is refused afterwards.
	if _, err := w.virtual().Patch(ctx, w.name, types.MergePatchType, []byte(`{"metadata":{"finalizers":["!"]},"spec":{"sessionAffinity":"ClientIP"}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an invalid finalizer: %v", err)
	}
	if wrote := p.hostWrites.reset(); wrote["PUT services"] == 0 {
		t.Error("the change did not reach the host, so the test shows nothing")
	}
	w.agree(t, "after the failed change")
}

// testServiceReuse: what a deleted Service had is free at once, for one of the
// same name and for another.
func (p *planes) testServiceReuse(t *testing.T) {
	ctx := t.Context()
	services := p.virtual.CoreV1().Services(space)
	for round, name := range []string{"reuse", "reuse", "another", "reuse"} {
		spec := `{"type":"NodePort","clusterIP":"10.96.55.5","ports":[{"port":80,"nodePort":31555}]}`
		if _, err := services.Create(ctx, newService(name, spec), metav1.CreateOptions{}); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := services.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := services.Create(ctx, newService("last", `{"clusterIP":"10.96.55.5"}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w := twins{p, "last"}
	w.agree(t, "the last one with this address")
	_, err := services.Create(ctx, newService("late", `{"clusterIP":"10.96.55.5"}`), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("the address of a Service that lives: %v", err)
	}
	w.agree(t, "after somebody else wanted its address")
	w.remove(t)
}

// testServiceStatus: the host's load balancer is shown and withdrawn; where the
// host says nothing, the tenant may.
func (p *planes) testServiceStatus(t *testing.T) {
	ctx := t.Context()
	w := twins{p, "status"}
	if _, err := w.virtual().Create(ctx, newService(w.name, `{"type":"LoadBalancer"}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer w.remove(t)
	w.agree(t, "made")
	get := func(ctx context.Context) (*corev1.Service, error) {
		return w.virtual().Get(ctx, w.name, metav1.GetOptions{})
	}
	ips := func(s *corev1.Service) (all []string) {
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			all = append(all, ingress.IP)
		}
		return all
	}
	own := `{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]},"conditions":[{"type":"Own","status":"True","reason":"Test","message":"","lastTransitionTime":"2020-01-01T00:00:00Z"}]}}`
	if _, err := w.virtual().Patch(ctx, w.name, types.MergePatchType, []byte(own), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	// A change of labels makes the engine look at it once more.
	if _, err := w.virtual().Patch(ctx, w.name, types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "labels on the host", w.onHost, func(s *corev1.Service) bool { return s.Labels["seen"] == "yes" })
	p.settle(t)
	if got, err := get(ctx); err != nil || !slices.Equal(ips(got), []string{"203.0.113.1"}) || len(got.Status.Conditions) != 1 {
		t.Errorf("the tenant's own status is gone: %+v, %v", got.Status, err)
	}
	onHost := func(status string) {
		t.Helper()
		if _, err := p.host.CoreV1().Services(hostNamespace).Patch(ctx, translate.HostName(space, w.name), types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	onHost(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.7"}]}}}`)
	waitFor(t, "the host's address", get, func(s *corev1.Service) bool {
		return slices.Equal(ips(s), []string{"198.51.100.7"}) && len(s.Status.Conditions) == 1
	})
	onHost(`{"status":{"loadBalancer":null}}`)
	waitFor(t, "no address", get, func(s *corev1.Service) bool { return len(ips(s)) == 0 && len(s.Status.Conditions) == 1 })
	onHost(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.8"}]}}}`)
	waitFor(t, "another address", get, func(s *corev1.Service) bool { return slices.Equal(ips(s), []string{"198.51.100.8"}) })
	if _, err := w.virtual().Patch(ctx, w.name, types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "no address for a type without", get, func(s *corev1.Service) bool { return len(ips(s)) == 0 })
	w.agree(t, "as a ClusterIP")
}

// settle waits until the syncer has written nothing for a while: it does not
// write for ever.
func (p *planes) settle(t *testing.T) {
	t.Helper()
	p.hostWrites.reset()
	p.virtualWrites.reset()
	eventually(t, "nothing is written any more", func(context.Context) error {
		time.Sleep(500 * time.Millisecond)
		host, virtual := p.hostWrites.reset(), p.virtualWrites.reset()
		if len(host)+len(virtual) > 0 {
			return fmt.Errorf("host %v, tenant %v", host, virtual)
		}
		return nil
	})
}

// testServiceEditedOnHost: what somebody changes on the host is made good, even
// if our marks go, too.
func (p *planes) testServiceEditedOnHost(t *testing.T) {
	ctx := t.Context()
	w := twins{p, "edited"}
	if _, err := w.virtual().Create(ctx, newService(w.name, `{"type":"NodePort"}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer w.remove(t)
	w.agree(t, "made")
	onHost := p.host.CoreV1().Services(hostNamespace)
	name := translate.HostName(space, w.name)
	for what, edit := range map[string]string{
		"ports":                   `{"spec":{"ports":[{"name":"mine","port":1234}]}}`,
		"type":                    `{"spec":{"type":"ClusterIP"}}`,
		"selector":                `{"spec":{"selector":{"app":"mine"}}}`,
		"policy":                  `{"spec":{"sessionAffinity":"ClientIP"}}`,
		"labels":                  `{"metadata":{"labels":null}}`,
		"annotations":             `{"metadata":{"annotations":null}}`,
		"all marks but the owner": `{"metadata":{"labels":null,"annotations":null}}`,
	} {
		before, err := w.onHost(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := onHost.Patch(ctx, name, types.MergePatchType, []byte(edit), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, what+" made good", func(ctx context.Context) error {
			now, err := w.onHost(ctx)
			if err != nil {
				return err
			}
			now.ResourceVersion, now.ManagedFields, now.Generation = before.ResourceVersion, before.ManagedFields, before.Generation
			if diff := cmp.Diff(before, now); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
	if err := onHost.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.agree(t, "deleted on the host")
	p.settle(t)
}

// testServiceEndpoints: endpoints written by hand reach the host, as Endpoints or
// EndpointSlices, before or after their Service, and follow it.
func (p *planes) testServiceEndpoints(t *testing.T) {
	ctx := t.Context()
	addresses := func(service string) func(context.Context) ([]string, error) {
		return func(ctx context.Context) ([]string, error) {
			list, err := p.host.DiscoveryV1().EndpointSlices(hostNamespace).List(ctx, metav1.ListOptions{
				LabelSelector: discoveryv1.LabelServiceName + "=" + translate.HostName(space, service),
			})
			if err != nil {
				return nil, err
			}
			var all []string
			for _, slice := range list.Items {
				for _, endpoint := range slice.Endpoints {
					all = append(all, endpoint.Addresses...)
				}
			}
			slices.Sort(all)
			return all, nil
		}
	}
	expect := func(what, service string, want ...string) {
		t.Helper()
		eventually(t, what, func(ctx context.Context) error {
			got, err := addresses(service)(ctx)
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("the host has %v, want %v", got, want)
			}
			return err
		})
	}
	service := func(name string) {
		t.Helper()
		if _, err := p.virtual.CoreV1().Services(space).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	//nolint:staticcheck // SA1019: Endpoints are deprecated and must work all the same.
	endpoints := func(name string, ips ...string) *corev1.Endpoints {
		made := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: name}, Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80}}}}}
		for _, ip := range ips {
			made.Subsets[0].Addresses = append(made.Subsets[0].Addresses, corev1.EndpointAddress{IP: ip})
		}
		return made
	}
	slice := func(name, service string, ips ...string) *discoveryv1.EndpointSlice {
		made := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}
		for _, ip := range ips {
			made.Endpoints = append(made.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
		}
		return made
	}
	inTenant := p.virtual.CoreV1().Endpoints(space)
	slicesInTenant := p.virtual.DiscoveryV1().EndpointSlices(space)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	must(inTenant.Create(ctx, endpoints("first", "192.0.2.1"), metav1.CreateOptions{}))
	service("first")
	expect("Endpoints, then the Service", "first", "192.0.2.1")
	must(inTenant.Update(ctx, endpoints("first", "192.0.2.1", "192.0.2.2"), metav1.UpdateOptions{}))
	expect("more Endpoints", "first", "192.0.2.1", "192.0.2.2")
	if err := inTenant.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("Endpoints deleted", "first")

	service("second")
	must(slicesInTenant.Create(ctx, slice("second-a", "second", "192.0.2.3"), metav1.CreateOptions{}))
	must(slicesInTenant.Create(ctx, slice("second-b", "second", "192.0.2.4"), metav1.CreateOptions{}))
	expect("the Service, then EndpointSlices", "second", "192.0.2.3", "192.0.2.4")
	changed := slice("second-a", "second", "192.0.2.5")
	changed.AddressType = ""
	must(slicesInTenant.Patch(ctx, "second-a", types.MergePatchType, []byte(`{"endpoints":[{"addresses":["192.0.2.5"]}]}`), metav1.PatchOptions{}))
	expect("an EndpointSlice changed", "second", "192.0.2.4", "192.0.2.5")
	must(slicesInTenant.Patch(ctx, "second-b", types.MergePatchType, []byte(`{"metadata":{"labels":{"kubernetes.io/service-name":"first"}}}`), metav1.PatchOptions{}))
	expect("an EndpointSlice moved away", "second", "192.0.2.5")
	expect("an EndpointSlice moved here", "first", "192.0.2.4")

	// Turned into a name it has no endpoints; turned back it has them again.
	must(p.virtual.CoreV1().Services(space).Patch(ctx, "second", types.MergePatchType, []byte(`{"spec":{"type":"ExternalName","externalName":"example.com"}}`), metav1.PatchOptions{}))
	expect("an ExternalName", "second")
	must(p.virtual.CoreV1().Services(space).Patch(ctx, "second", types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP","externalName":null}}`), metav1.PatchOptions{}))
	expect("a ClusterIP again", "second", "192.0.2.5")

	// What must not be reached.
	refused := slice("metadata", "second", "169.254.169.254")
	if _, err := slicesInTenant.Create(ctx, refused, metav1.CreateOptions{}); err == nil {
		eventually(t, "an event says why it does not cross", func(ctx context.Context) error {
			events, err := p.virtual.CoreV1().Events(space).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=metadata"})
			if err == nil && len(events.Items) == 0 {
				err = errors.New("none")
			}
			return err
		})
	}
	expect("all others are there", "second", "192.0.2.5")
	for _, name := range []string{"first", "second"} {
		if err := p.virtual.CoreV1().Services(space).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(name+" deleted", name)
	}
}

// testServiceAddresses: the tenant's API shows which addresses are taken, and
// ranges of its own can be written.
func (p *planes) testServiceAddresses(t *testing.T) {
	ctx := t.Context()
	made, err := p.virtual.CoreV1().Services(space).Create(ctx, newService("addresses", `{}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address := func(ctx context.Context) (*networkingv1.IPAddress, error) {
		return p.virtual.NetworkingV1().IPAddresses().Get(ctx, made.Spec.ClusterIP, metav1.GetOptions{})
	}
	found, err := address(ctx)
	if err != nil || found.Spec.ParentRef == nil || found.Spec.ParentRef.Name != "addresses" || found.Spec.ParentRef.Namespace != space {
		t.Errorf("the address of a Service: %+v, %v", found, err)
	}
	if err := p.virtual.CoreV1().Services(space).Delete(ctx, "addresses", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "the address of a deleted Service", address)
	ranges := p.virtual.NetworkingV1().ServiceCIDRs()
	if _, err := ranges.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/24"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the range is ready", func(ctx context.Context) (*networkingv1.ServiceCIDR, error) {
		return ranges.Get(ctx, "more", metav1.GetOptions{})
	}, func(r *networkingv1.ServiceCIDR) bool {
		return slices.ContainsFunc(r.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == networkingv1.ServiceCIDRConditionReady && c.Status == metav1.ConditionTrue
		})
	})
	// The host knows nothing of it, and no packet would find the way.
	if _, err := p.virtual.CoreV1().Services(space).Create(ctx, newService("beyond", `{"clusterIP":"10.200.0.7"}`), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an address that the host cannot give: %v", err)
	}
	if err := ranges.Delete(ctx, "more", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "the range", func(ctx context.Context) (*networkingv1.ServiceCIDR, error) {
		return ranges.Get(ctx, "more", metav1.GetOptions{})
	})
}
