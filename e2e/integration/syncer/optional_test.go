package syncer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func definition(group, plural, kind string) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{
			Name:        plural + "." + group,
			Annotations: map[string]string{"api-approved.kubernetes.io": "unapproved, for a test"},
		},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: group, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema:       &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			}},
		},
	}
}

// TestOptionalKinds: classes of kinds that come and go on either side.
func TestOptionalKinds(t *testing.T) {
	p := startPlanes(t)
	p.stopSyncer()
	config := p.config
	config.Gateways = []string{"infra/public"}
	config.CustomResources = []api.CustomResource{{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshot", Resource: "volumesnapshots"}}
	e, err := engine.New(engine.Options{
		Tenant: translate.NewTenant(config, nil), Kinds: kinds.All(), Virtual: p.asAdmin, Host: p.asSyncer, OptionalInterval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, e.Run)
	ctx := t.Context()
	sides := map[translate.Side]*rest.Config{translate.Virtual: p.asAdmin, translate.Host: p.hostConfig}
	definitions := func(side translate.Side) apiextensions.Interface {
		t.Helper()
		c, err := apiextensions.NewForConfig(sides[side])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	objects := func(side translate.Side, resource schema.GroupVersionResource) dynamic.ResourceInterface {
		t.Helper()
		c, err := dynamic.NewForConfig(sides[side])
		if err != nil {
			t.Fatal(err)
		}
		return c.Resource(resource)
	}
	for kind, test := range map[string]struct {
		group, plural string
		fields        map[string]any
	}{
		"GatewayClass":        {"gateway.networking.k8s.io", "gatewayclasses", map[string]any{"spec": map[string]any{"controllerName": "example.com/g", "parametersRef": map[string]any{"name": "secret"}}}},
		"VolumeSnapshotClass": {"snapshot.storage.k8s.io", "volumesnapshotclasses", map[string]any{"driver": "example.com/fast", "deletionPolicy": "Delete", "parameters": map[string]any{"secret": "x"}}},
	} {
		t.Run(kind, func(t *testing.T) {
			resource := schema.GroupVersionResource{Group: test.group, Version: "v1", Resource: test.plural}
			install := func(side translate.Side) {
				t.Helper()
				if _, err := definitions(side).ApiextensionsV1().CustomResourceDefinitions().Create(ctx, definition(test.group, test.plural, kind), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			remove := func(side translate.Side) {
				t.Helper()
				if err := definitions(side).ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, test.plural+"."+test.group, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			create := func(side translate.Side, name string) {
				t.Helper()
				eventually(t, "create "+name, func(ctx context.Context) error {
					object := &unstructured.Unstructured{Object: map[string]any{}}
					for key, value := range test.fields {
						object.Object[key] = value
					}
					object = object.DeepCopy()
					object.SetAPIVersion(test.group + "/v1")
					object.SetKind(kind)
					object.SetName(name)
					_, err := objects(side, resource).Create(ctx, object, metav1.CreateOptions{})
					return err
				})
			}
			shown := func(name string) func(context.Context) (*unstructured.Unstructured, error) {
				return func(ctx context.Context) (*unstructured.Unstructured, error) {
					return objects(translate.Virtual, resource).Get(ctx, name, metav1.GetOptions{})
				}
			}
			install(translate.Host)
			create(translate.Host, "public")
			install(translate.Virtual)
			found := waitFor(t, "the class in the tenant", shown("public"), nil)
			for _, secret := range [][]string{{"parameters"}, {"spec", "parametersRef"}} {
				if _, ok, _ := unstructured.NestedFieldNoCopy(found.Object, secret...); ok {
					t.Errorf("%v is shown: %v", secret, found.Object)
				}
			}
			create(translate.Virtual, "mine")
			if err := objects(translate.Virtual, resource).Delete(ctx, "public", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "it is back", shown("public"), func(u *unstructured.Unstructured) bool { return u.GetUID() != found.GetUID() })
			if err := objects(translate.Host, resource).Delete(ctx, "public", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			gone(t, "the class", shown("public"))

			// The host loses the kind: what stood for its objects goes. It comes back.
			create(translate.Host, "again")
			waitFor(t, "the class in the tenant", shown("again"), nil)
			remove(translate.Host)
			gone(t, "the class of a kind that the host lost", shown("again"))
			if _, err := shown("mine")(ctx); err != nil {
				t.Errorf("the tenant's own: %v", err)
			}
			eventually(t, "the host has it again", func(ctx context.Context) error {
				_, err := definitions(translate.Host).ApiextensionsV1().CustomResourceDefinitions().Create(ctx, definition(test.group, test.plural, kind), metav1.CreateOptions{})
				return err
			})
			create(translate.Host, "later")
			waitFor(t, "the class in the tenant", shown("later"), nil)

			// The tenant loses it: nothing is written, and all else goes on.
			remove(translate.Virtual)
			eventually(t, "the kind is gone in the tenant", func(ctx context.Context) error {
				_, err := shown("later")(ctx)
				if apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("still there: %v", err)
			})
			name := "after-" + test.plural
			p.createPod(t, pod(name))
			waitFor(t, "host pod", p.hostPod(name), nil)
		})
	}
}
