package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// certificateDefinition is of a kind as cert-manager has it: several versions, a
// schema, a status of its own.
const certificateDefinition = `
metadata: {name: certificates.certs.example.com}
spec:
  group: certs.example.com
  scope: Namespaced
  names: {plural: certificates, singular: certificate, kind: Certificate, listKind: CertificateList, shortNames: [cert]}
  versions:
  - name: v1alpha1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}]
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [secretName]
            properties:
              secretName: {type: string}
              dnsNames: {type: array, items: {type: string}}
              issuerRef: {type: object, properties: {name: {type: string}, kind: {type: string}}}
              password: {type: object, properties: {name: {type: string}, key: {type: string}}}
              revisionHistoryLimit: {type: integer, minimum: 1}
          status:
            type: object
            properties:
              revision: {type: integer}
              observedGeneration: {type: integer}
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}, message: {type: string}}}
`

// monitorDefinition is of a kind without a status of its own.
const monitorDefinition = `
metadata: {name: monitors.watch.example.com}
spec:
  group: watch.example.com
  scope: Namespaced
  names: {plural: monitors, singular: monitor, kind: Monitor, listKind: MonitorList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

// unlistedDefinition is of a kind that the limits do not name.
const unlistedDefinition = `
metadata: {name: unlisteds.watch.example.com}
spec:
  group: watch.example.com
  scope: Namespaced
  names: {plural: unlisteds, singular: unlisted, kind: Unlisted, listKind: UnlistedList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

func customResources() []api.CustomResource {
	return []api.CustomResource{
		{
			Group: "certs.example.com", Version: "v1", Kind: "Certificate", Resource: "certificates",
			References: []api.CustomReference{
				{Path: ".spec.secretName", Kind: "Secret", From: api.FromHost},
				{Path: ".spec.password.name", Kind: "Secret"},
			},
			HostPaths: []string{".spec.dnsNames[*]"},
		},
		{
			Group: "watch.example.com", Version: "v1", Kind: "Monitor", Resource: "monitors",
			References:    []api.CustomReference{{Path: ".spec.service", Kind: "Service"}},
			SelectorPaths: []string{".spec.selector"},
		},
		{Group: "watch.example.com", Version: "v1", Kind: "Broken", Resource: "brokens", HostPaths: []string{"spec.host"}},
	}
}

func parseDefinition(t *testing.T, text string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	made := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(text), made); err != nil {
		t.Fatal(err)
	}
	return made
}

func definitions(t *testing.T, config *rest.Config) apiextensions.Interface {
	t.Helper()
	c, err := apiextensions.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// allowCustomResources gives the syncer what the manager would, and nothing else.
func (p *planes) allowCustomResources(t *testing.T, resources []api.CustomResource) {
	t.Helper()
	in := isolation.Input{Tenant: tenancy.Effective{Name: p.config.Tenant, Namespace: hostNamespace, Type: api.VirtualCluster, Limits: tenancy.Limits{CustomResources: resources}}}
	rbac := p.host.RbacV1()
	for _, object := range isolation.SyncerAccess(in) {
		var err error
		switch object := object.(type) {
		case *rbacv1.Role:
			_, err = rbac.Roles(hostNamespace).Create(t.Context(), object, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			_, err = rbac.RoleBindings(hostNamespace).Create(t.Context(), object, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			object.OwnerReferences = nil
			_, err = rbac.ClusterRoles().Create(t.Context(), object, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			object.OwnerReferences = nil
			_, err = rbac.ClusterRoleBindings().Create(t.Context(), object, metav1.CreateOptions{})
		default:
			err = fmt.Errorf("a %T", object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func certificate(name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "certs.example.com/v1", "kind": "Certificate", "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

// TestCustomResources: a kind of the host that the limits name, which something on
// the host acts upon, from before the host has it until after the host has lost
// it; and one that the limits do not name.
func TestCustomResources(t *testing.T) {
	p := startPlanes(t)
	p.stopSyncer()
	config := p.config
	config.CustomResources = customResources()
	p.allowCustomResources(t, config.CustomResources)
	e, err := engine.New(engine.Options{
		Tenant: translate.NewTenant(config, nil), Kinds: kinds.For(config.CustomResources), Virtual: p.asAdmin, Host: p.asSyncer,
		OptionalInterval: 20 * time.Millisecond, Linger: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, e.Run)
	ctx := t.Context()
	get, create, deletion := metav1.GetOptions{}, metav1.CreateOptions{}, metav1.DeleteOptions{}

	// The host lacks the kinds: everything else works, and the tenant has nothing.
	p.createPod(t, pod("before"))
	waitFor(t, "host pod", p.hostPod("before"), nil)
	const certificates = "certificates.certs.example.com"
	inTenant := definitions(t, p.asAdmin).ApiextensionsV1().CustomResourceDefinitions()
	onHostDefinitions := definitions(t, p.hostConfig).ApiextensionsV1().CustomResourceDefinitions()
	if list, err := inTenant.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Fatalf("the tenant's definitions: %v, %v", list, err)
	}
	for _, text := range []string{certificateDefinition, monitorDefinition, unlistedDefinition} {
		install(t, p.hostConfig, parseDefinition(t, text))
	}
	copied := waitFor(t, "the definition in the tenant", func(ctx context.Context) (*apiextensionsv1.CustomResourceDefinition, error) {
		return inTenant.Get(ctx, certificates, get)
	}, nil)
	if len(copied.Spec.Versions) != 1 || copied.Spec.Versions[0].Name != "v1" || len(copied.Spec.Versions[0].AdditionalPrinterColumns) != 1 {
		t.Errorf("the copied definition has the versions %+v", copied.Spec.Versions)
	}

	resource := schema.GroupVersionResource{Group: "certs.example.com", Version: "v1", Resource: "certificates"}
	virtual, onHost := untyped(t, p.asAdmin, resource, space), untyped(t, p.hostConfig, resource, hostNamespace)
	hostCertificate := func(name string) func(context.Context) (*unstructured.Unstructured, error) {
		return func(ctx context.Context) (*unstructured.Unstructured, error) {
			return onHost.Get(ctx, translate.HostName(space, name), get)
		}
	}
	hostSecret := func(name string) func(context.Context) (*corev1.Secret, error) {
		return func(ctx context.Context) (*corev1.Secret, error) {
			return p.host.CoreV1().Secrets(hostNamespace).Get(ctx, translate.HostName(space, name), get)
		}
	}
	virtualSecret := func(name string) func(context.Context) (*corev1.Secret, error) {
		return func(ctx context.Context) (*corev1.Secret, error) {
			return p.virtual.CoreV1().Secrets(space).Get(ctx, name, get)
		}
	}
	make := func(object *unstructured.Unstructured) *unstructured.Unstructured {
		t.Helper()
		return waitFor(t, "create "+object.GetName(), func(ctx context.Context) (*unstructured.Unstructured, error) {
			return virtual.Create(ctx, object, create)
		}, nil)
	}

	if _, err := p.virtual.CoreV1().Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "password"}, StringData: map[string]string{"p": "1"}}, create); err != nil {
		t.Fatal(err)
	}
	make(certificate("shop", map[string]any{
		"secretName": "shop-tls", "dnsNames": []any{"shop.example.com"}, "issuerRef": map[string]any{"name": "letsencrypt", "kind": "ClusterIssuer"},
		"password": map[string]any{"name": "password", "key": "p"},
	}))
	host := waitFor(t, "host certificate", hostCertificate("shop"), nil)
	field := func(object *unstructured.Unstructured, path ...string) string {
		value, _, _ := unstructured.NestedString(object.Object, path...)
		return value
	}
	secretName := field(host, "spec", "secretName")
	if want := translate.HostName(space, "shop-tls"); secretName != want {
		t.Errorf("the Secret on the host is called %q, want %q", secretName, want)
	}
	if issuer := field(host, "spec", "issuerRef", "name"); issuer != "letsencrypt" {
		t.Errorf("the issuer is %q", issuer)
	}
	waitFor(t, "the Secret that it names crosses", hostSecret("password"), nil)

	// What a controller on the host does: a Secret, then a status, and a field of
	// the spec that it fills in.
	issue := func(host *unstructured.Unstructured, content string) *corev1.Secret {
		t.Helper()
		made, err := p.host.CoreV1().Secrets(hostNamespace).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: field(host, "spec", "secretName"), Annotations: map[string]string{"certs.example.com/for": host.GetName()}},
			Type:       corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte(content), "tls.key": []byte("key")},
		}, create)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	made := issue(host, "one")
	eventually(t, "the host's controller writes", func(ctx context.Context) error {
		host, err := hostCertificate("shop")(ctx)
		if err != nil {
			return err
		}
		if err := unstructured.SetNestedField(host.Object, int64(3), "spec", "revisionHistoryLimit"); err != nil {
			return err
		}
		if host, err = onHost.Update(ctx, host, metav1.UpdateOptions{}); err != nil {
			return err
		}
		host.Object["status"] = map[string]any{
			"revision": int64(1), "observedGeneration": host.GetGeneration(),
			"conditions": []any{map[string]any{"type": "Ready", "status": "True", "message": fmt.Sprintf("issued %q in Secret %s/%s", host.GetName(), hostNamespace, secretName)}},
		}
		_, err = onHost.UpdateStatus(ctx, host, metav1.UpdateOptions{})
		return err
	})
	seen := waitFor(t, "the status comes back", func(ctx context.Context) (*unstructured.Unstructured, error) {
		return virtual.Get(ctx, "shop", get)
	}, func(u *unstructured.Unstructured) bool {
		revision, _, _ := unstructured.NestedInt64(u.Object, "status", "revision")
		return revision == 1
	})
	conditions, _, _ := unstructured.NestedSlice(seen.Object, "status", "conditions")
	if message := fmt.Sprint(conditions); !strings.Contains(message, `issued "shop" in Secret `+space+`/shop-tls`) {
		t.Errorf("the condition says %s", message)
	}
	if observed, _, _ := unstructured.NestedInt64(seen.Object, "status", "observedGeneration"); observed != seen.GetGeneration() {
		t.Errorf("generation %d, observed %d", seen.GetGeneration(), observed)
	}
	brought := waitFor(t, "the Secret comes to the tenant", virtualSecret("shop-tls"), nil)
	if brought.Type != corev1.SecretTypeTLS || string(brought.Data["tls.crt"]) != "one" || brought.Annotations["certs.example.com/for"] != "shop" {
		t.Errorf("it came as %v %v %v", brought.Type, brought.Data, brought.Annotations)
	}
	p.quiet(t)

	t.Run("a pod uses what came", func(t *testing.T) {
		user := pod("user")
		user.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "shop-tls"}}}}
		p.createPod(t, user)
		host := waitFor(t, "host pod", p.hostPod("user"), nil)
		if name := host.Spec.Volumes[0].Secret.SecretName; name != secretName {
			t.Errorf("it mounts %q, want %q", name, secretName)
		}
		if now, err := hostSecret("shop-tls")(ctx); err != nil || now.UID != made.UID || now.Labels[api.LabelComponent] != "" {
			t.Errorf("the Secret on the host was touched: %v (%v)", now, err)
		}
	})
	t.Run("a volume begins as one", func(t *testing.T) {
		begins := claim("begins", new("fast"))
		begins.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: new("certs.example.com"), Kind: "Certificate", Name: "shop"}
		p.createClaim(t, begins)
		host := waitFor(t, "host claim", p.hostClaim("begins"), nil)
		if source := host.Spec.DataSourceRef; source == nil || source.Kind != "Certificate" || source.Name != translate.HostName(space, "shop") {
			t.Errorf("it begins as %+v", source)
		}
		foreign := claim("foreign", new("fast"))
		foreign.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: new("watch.example.com"), Kind: "Unlisted", Name: "shop"}
		p.createClaim(t, foreign)
		p.hears(t, "PersistentVolumeClaim", "foreign", "limits.customResources")
		p.removeClaims(t) // What is refused, or waits, is told again and again.
	})
	t.Run("a new one comes, an edited one comes back", func(t *testing.T) {
		if _, err := p.host.CoreV1().Secrets(hostNamespace).Patch(ctx, secretName, types.MergePatchType, []byte(`{"stringData":{"tls.crt":"two"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		is := func(content string) func(*corev1.Secret) bool {
			return func(s *corev1.Secret) bool { return string(s.Data["tls.crt"]) == content }
		}
		waitFor(t, "the renewed Secret", virtualSecret("shop-tls"), is("two"))
		if _, err := p.virtual.CoreV1().Secrets(space).Patch(ctx, "shop-tls", types.MergePatchType, []byte(`{"stringData":{"tls.crt":"mine"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the edit is undone", virtualSecret("shop-tls"), is("two"))
		if err := p.virtual.CoreV1().Secrets(space).Delete(ctx, "shop-tls", deletion); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it comes again", virtualSecret("shop-tls"), func(s *corev1.Secret) bool { return is("two")(s) && s.UID != brought.UID })
	})
	t.Run("a change follows, what the host filled in stays", func(t *testing.T) {
		if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"spec":{"dnsNames":["www.example.com"],"issuerRef":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		now := waitFor(t, "the change on the host", hostCertificate("shop"), func(u *unstructured.Unstructured) bool {
			names, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "dnsNames")
			_, issuer, _ := unstructured.NestedMap(u.Object, "spec", "issuerRef")
			return len(names) == 1 && names[0] == "www.example.com" && !issuer
		})
		if kept, _, _ := unstructured.NestedInt64(now.Object, "spec", "revisionHistoryLimit"); kept != 3 {
			t.Errorf("what the host filled in is %d", kept)
		}
		p.quiet(t)
	})
	t.Run("what the host's controller tells", func(t *testing.T) {
		about := waitFor(t, "host certificate", hostCertificate("shop"), nil)
		if _, err := p.host.CoreV1().Events(hostNamespace).Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: about.GetName() + ".1"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "certs.example.com/v1", Kind: "Certificate", Namespace: hostNamespace, Name: about.GetName(), UID: about.GetUID()},
			Reason:         "Issuing", Message: "ordered " + about.GetName(), Type: corev1.EventTypeNormal,
		}, create); err != nil {
			t.Fatal(err)
		}
		p.hears(t, "Certificate", "shop", "ordered shop")
	})
	t.Run("refused", func(t *testing.T) {
		make(certificate("foreign", map[string]any{"secretName": "foreign-tls", "dnsNames": []any{"shop.example.org"}}))
		p.hears(t, "Certificate", "foreign", "shop.example.org")
		if _, err := p.virtual.CoreV1().Secrets(space).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "own-tls"}, StringData: map[string]string{"tls.crt": "own"}}, create); err != nil {
			t.Fatal(err)
		}
		make(certificate("own", map[string]any{"secretName": "own-tls"}))
		p.hears(t, "Certificate", "own", `there is a Secret "own-tls"`)
		for _, name := range []string{"foreign", "own"} {
			if _, err := hostCertificate(name)(ctx); !apierrors.IsNotFound(err) {
				t.Errorf("%s is on the host (%v)", name, err)
			}
		}
		// The tenant makes room: it crosses.
		if err := p.virtual.CoreV1().Secrets(space).Delete(ctx, "own-tls", deletion); err != nil {
			t.Fatal(err)
		}
		crossed := waitFor(t, "it crosses", hostCertificate("own"), nil)
		issue(crossed, "issued")
		waitFor(t, "its Secret", virtualSecret("own-tls"), func(s *corev1.Secret) bool { return string(s.Data["tls.crt"]) == "issued" })
	})
	t.Run("a Secret of the control plane does not come", func(t *testing.T) {
		// One of our own under the name that the host's controller would use.
		object := make(certificate("tricky", map[string]any{"secretName": "password"}))
		p.hears(t, "Certificate", object.GetName(), `there is a Secret "password"`)
	})
	t.Run("gone on the host", func(t *testing.T) {
		before := waitFor(t, "host certificate", hostCertificate("shop"), nil)
		if err := onHost.Delete(ctx, before.GetName(), deletion); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is made again", hostCertificate("shop"), func(u *unstructured.Unstructured) bool { return u.GetUID() != before.GetUID() })
	})
	t.Run("deleted in the tenant", func(t *testing.T) {
		if err := virtual.Delete(ctx, "own", deletion); err != nil {
			t.Fatal(err)
		}
		gone(t, "host certificate", hostCertificate("own"))
		// The garbage collectors of both sides take these. They look for new kinds
		// every half minute, and the kind is new.
		for side, secret := range map[string]func(context.Context) (*corev1.Secret, error){"tenant": virtualSecret("own-tls"), "host": hostSecret("own-tls")} {
			within(t, 3*patience, "the Secret is gone: "+side, func(ctx context.Context) error {
				_, err := secret(ctx)
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("still there (%v)", err)
			})
		}
	})
	t.Run("without a status of its own", func(t *testing.T) {
		resource := schema.GroupVersionResource{Group: "watch.example.com", Version: "v1", Resource: "monitors"}
		virtual, onHost := untyped(t, p.asAdmin, resource, space), untyped(t, p.hostConfig, resource, hostNamespace)
		monitor := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "watch.example.com/v1", "kind": "Monitor", "metadata": map[string]any{"name": "web"},
			"spec": map[string]any{"service": "web", "selector": map[string]any{}},
		}}
		waitFor(t, "create", func(ctx context.Context) (*unstructured.Unstructured, error) {
			return virtual.Create(ctx, monitor, create)
		}, nil)
		host := waitFor(t, "host monitor", func(ctx context.Context) (*unstructured.Unstructured, error) {
			return onHost.Get(ctx, translate.HostName(space, "web"), get)
		}, nil)
		labels, _, _ := unstructured.NestedStringMap(host.Object, "spec", "selector", "matchLabels")
		if labels[api.LabelTenant] != "acme" || labels[api.LabelVirtualNamespace] != space || field(host, "spec", "service") != translate.HostName(space, "web") {
			t.Errorf("on the host it is %v", host.Object["spec"])
		}
		if _, err := onHost.Patch(ctx, host.GetName(), types.MergePatchType, []byte(`{"status":{"targets":2}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "its status comes back", func(ctx context.Context) (*unstructured.Unstructured, error) { return virtual.Get(ctx, "web", get) },
			func(u *unstructured.Unstructured) bool {
				targets, _, _ := unstructured.NestedInt64(u.Object, "status", "targets")
				return targets == 2
			})
		p.quiet(t)
	})
	t.Run("not listed", func(t *testing.T) {
		if _, err := inTenant.Get(ctx, "unlisteds.watch.example.com", get); !apierrors.IsNotFound(err) {
			t.Fatalf("the tenant has the definition (%v)", err)
		}
		// Installed by the tenant itself, it stays there.
		install(t, p.asAdmin, parseDefinition(t, unlistedDefinition))
		resource := schema.GroupVersionResource{Group: "watch.example.com", Version: "v1", Resource: "unlisteds"}
		object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "watch.example.com/v1", "kind": "Unlisted", "metadata": map[string]any{"name": "u"}}}
		mine := untyped(t, p.asAdmin, resource, space)
		waitFor(t, "create", func(ctx context.Context) (*unstructured.Unstructured, error) { return mine.Create(ctx, object, create) }, nil)
		p.createPod(t, pod("after-unlisted"))
		waitFor(t, "host pod", p.hostPod("after-unlisted"), nil)
		if list, err := untyped(t, p.hostConfig, resource, hostNamespace).List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
			t.Errorf("on the host: %v (%v)", list, err)
		}
		// The syncer could not even if it wanted to.
		if _, err := untyped(t, p.asSyncer, resource, hostNamespace).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the syncer may list them: %v", err)
		}
		if _, err := untyped(t, p.asSyncer, schema.GroupVersionResource{Group: "certs.example.com", Version: "v1", Resource: "certificates"}, "default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("the syncer may list certificates elsewhere: %v", err)
		}
	})
	t.Run("an edited definition", func(t *testing.T) {
		if _, err := inTenant.Patch(ctx, certificates, types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/mine","value":{"type":"string"}}]`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is the host's again", func(ctx context.Context) (*apiextensionsv1.CustomResourceDefinition, error) {
			return inTenant.Get(ctx, certificates, get)
		}, func(d *apiextensionsv1.CustomResourceDefinition) bool {
			_, mine := d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["mine"]
			return !mine
		})
	})
	t.Run("the host loses the kind and has it again", func(t *testing.T) {
		if err := onHostDefinitions.Delete(ctx, certificates, deletion); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func(ctx context.Context) error {
			if _, err := onHostDefinitions.Get(ctx, certificates, get); !apierrors.IsNotFound(err) {
				return errors.New("still there")
			}
			return nil
		})
		make(certificate("late", map[string]any{"secretName": "late-tls"}))
		p.hears(t, "Certificate", "late", "the host does not have certificates.certs.example.com")
		p.createPod(t, pod("meanwhile"))
		waitFor(t, "host pod", p.hostPod("meanwhile"), nil)
		install(t, p.hostConfig, parseDefinition(t, certificateDefinition))
		waitFor(t, "late certificate on the host", hostCertificate("late"), nil)
		waitFor(t, "the old one on the host", hostCertificate("shop"), nil)
	})
	t.Run("a definition of the tenant's own", func(t *testing.T) {
		if _, err := inTenant.Patch(ctx, certificates, types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+api.AnnotationFromHost+`":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		gone(t, "host certificate", hostCertificate("shop"))
		gone(t, "late host certificate", hostCertificate("late"))
		eventually(t, "an event says so", func(ctx context.Context) error {
			events, err := p.virtual.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=CustomResourceDefinition"})
			if err != nil {
				return err
			}
			for _, event := range events.Items {
				if event.InvolvedObject.Name == certificates && strings.Contains(event.Message, "stay in this cluster") {
					return nil
				}
			}
			return fmt.Errorf("events: %v", events.Items)
		})
		// What is the tenant's stays.
		if _, err := virtual.Get(ctx, "shop", get); err != nil {
			t.Error(err)
		}
	})
}
