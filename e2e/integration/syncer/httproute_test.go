package syncer_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// gatewayDefinition is one of those that the Gateway API is installed by.
func gatewayDefinition(t *testing.T, plural string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/gateway.networking.k8s.io_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	made := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(content, made); err != nil {
		t.Fatal(err)
	}
	made.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	return made
}

func install(t *testing.T, config *rest.Config, definition *apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	c, err := apiextensions.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), definition, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func untyped(t *testing.T, config *rest.Config, resource schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	t.Helper()
	c, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c.Resource(resource).Namespace(namespace)
}

// TestHTTPRoutes: with the definitions of the Gateway API, which come late on
// both sides, routes reach the Gateways of the limits and nothing else.
func TestHTTPRoutes(t *testing.T) {
	p := startPlanes(t)
	p.stopSyncer()
	config := p.config
	config.Gateways = []string{"gateways/public"}
	e, err := engine.New(engine.Options{
		Tenant: translate.NewTenant(config, nil), Kinds: kinds.All(), Virtual: p.asAdmin, Host: p.asSyncer, OptionalInterval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, e.Run)
	ctx := t.Context()
	// The host lacks the API: everything else works.
	p.createPod(t, pod("before"))
	waitFor(t, "host pod", p.hostPod("before"), nil)

	install(t, p.hostConfig, gatewayDefinition(t, "httproutes"))
	install(t, p.asAdmin, gatewayDefinition(t, "httproutes"))
	resource := schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}
	virtual, onHost := untyped(t, p.asAdmin, resource, space), untyped(t, p.hostConfig, resource, hostNamespace)
	route := func(name, host string, parents ...any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"name": name},
			"spec": map[string]any{
				"parentRefs": parents, "hostnames": []any{host},
				"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "port": int64(80)}}}},
			},
		}}
	}
	public, own := map[string]any{"namespace": "gateways", "name": "public"}, map[string]any{"name": "own"}
	create := func(route *unstructured.Unstructured) {
		t.Helper()
		eventually(t, "create route "+route.GetName(), func(ctx context.Context) error {
			_, err := virtual.Create(ctx, route, metav1.CreateOptions{})
			return err
		})
	}
	hostRoute := func(name string) func(context.Context) (*unstructured.Unstructured, error) {
		return func(ctx context.Context) (*unstructured.Unstructured, error) {
			return onHost.Get(ctx, translate.HostName(space, name), metav1.GetOptions{})
		}
	}
	create(route("shop", "shop.example.com", public, own))
	host := waitFor(t, "host route", hostRoute("shop"), nil)
	if parents, _, _ := unstructured.NestedSlice(host.Object, "spec", "parentRefs"); len(parents) != 1 {
		t.Errorf("parents on the host: %v", parents)
	}
	// A gateway's controller says that it has attached it.
	condition := map[string]any{
		"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": host.GetGeneration(), "lastTransitionTime": "2026-01-02T03:04:05Z",
	}
	if err := unstructured.SetNestedSlice(host.Object, []any{map[string]any{
		"parentRef": public, "controllerName": "example.com/gateway", "conditions": []any{condition},
	}}, "status", "parents"); err != nil {
		t.Fatal(err)
	}
	if _, err := onHost.UpdateStatus(ctx, host, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its word comes back", func(ctx context.Context) (*unstructured.Unstructured, error) {
		return virtual.Get(ctx, "shop", metav1.GetOptions{})
	}, func(u *unstructured.Unstructured) bool {
		parents, _, _ := unstructured.NestedSlice(u.Object, "status", "parents")
		return len(parents) == 1
	})
	p.quiet(t)

	if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"spec":{"hostnames":["b.example.com"]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	changed := waitFor(t, "a change follows", hostRoute("shop"), func(u *unstructured.Unstructured) bool {
		names, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "hostnames")
		return len(names) == 1 && names[0] == "b.example.com"
	})
	if err := onHost.Delete(ctx, changed.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "host route is made again", hostRoute("shop"), func(u *unstructured.Unstructured) bool { return u.GetUID() != changed.GetUID() })

	for name, object := range map[string]*unstructured.Unstructured{
		"greedy":  route("greedy", "shop.example.org", public),
		"foreign": route("foreign", "shop.example.com", map[string]any{"namespace": "gateways", "name": "internal"}),
	} {
		create(object)
		p.hears(t, "HTTPRoute", name, map[string]string{"greedy": "shop.example.org", "foreign": "gateways/public"}[name])
		if _, err := hostRoute(name)(ctx); !apierrors.IsNotFound(err) {
			t.Errorf("route %s is on the host (%v)", name, err)
		}
	}
	// It leaves the host's Gateway.
	if _, err := virtual.Patch(ctx, "shop", types.MergePatchType, []byte(`{"spec":{"parentRefs":[{"name":"own"}]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	gone(t, "host route", hostRoute("shop"))

	// The host loses the API: everything else works.
	c, err := apiextensions.NewForConfig(p.hostConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, "httproutes.gateway.networking.k8s.io", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API is gone", func(ctx context.Context) error {
		_, err := hostRoute("shop")(ctx)
		if apierrors.IsNotFound(err) && strings.Contains(err.Error(), "could not find the requested resource") {
			return nil
		}
		return fmt.Errorf("still there: %v", err)
	})
	create(route("late", "late.example.com", public))
	p.createPod(t, pod("after"))
	waitFor(t, "host pod", p.hostPod("after"), nil)
}
