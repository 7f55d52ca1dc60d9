package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	crdopenapi "k8s.io/apiextensions-apiserver/pkg/controller/openapi"
	crdopenapiv3 "k8s.io/apiextensions-apiserver/pkg/controller/openapiv3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatedopenapi "k8s.io/kube-aggregator/pkg/controllers/openapi/aggregator"
	"k8s.io/kube-openapi/pkg/builder3"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	explain "k8s.io/kubectl/pkg/explain/v2"

	"github.com/sublet-dev/sublet/pkg/controlplane/openapi"
)

// TestOpenAPI: the documents are those that upstream would build, and what
// clients and the API server itself do with them.
func TestOpenAPI(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, nil)
	createShip(t, p, "a ship")
	t.Run("as upstream", func(t *testing.T) { testOpenAPIUpstream(t, p) })
	t.Run("custom resources", func(t *testing.T) { testOpenAPICustom(t, p) })
	t.Run("protobuf", func(t *testing.T) { testOpenAPIProtobuf(t, p) })
	t.Run("explain", func(t *testing.T) { testExplain(t, p) })
	t.Run("apply", func(t *testing.T) { testApply(t, p) })
	t.Run("validation", func(t *testing.T) { testFieldValidation(t, p) })
	t.Run("rights", func(t *testing.T) { testOpenAPIRights(t, p) })

	before := p.openAPIList(t)
	etag := p.openAPI(t, "/openapi/v2", "").Header.Get("Etag")
	must(t, "stopping", p.stop())
	again := start(t, dir, nil)
	t.Run("restart", func(t *testing.T) {
		if diff := cmp.Diff(before, again.openAPIList(t)); diff != "" {
			t.Errorf("hashes changed (-before +after):\n%s", diff)
		}
		if now := again.openAPI(t, "/openapi/v2", "").Header.Get("Etag"); now != etag {
			t.Errorf("the ETag of version 2 was %s and is %s", etag, now)
		}
	})
}

// openAPI asks without a client library, as each of them hides something.
func (p *plane) openAPI(t *testing.T, path, accept string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api"+path, nil)
	must(t, "making a request", err)
	request.Header.Set("Authorization", "Bearer "+p.config.BearerToken)
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	response, err := p.server.loopback.RoundTrip(request)
	must(t, "asking for "+path, err)
	content, err := io.ReadAll(response.Body)
	must(t, "reading "+path, err)
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(content))
	return response
}

func (p *plane) openAPIDocument(t *testing.T, path string) map[string]any {
	t.Helper()
	response := p.openAPI(t, path, "application/json")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s", path, response.Status)
	}
	return decoded(t, path, response.Body)
}

// openAPIList returns the addresses of the version 3 documents.
func (p *plane) openAPIList(t *testing.T) map[string]string {
	t.Helper()
	var list handler3.OpenAPIV3Discovery
	must(t, "reading the list of documents", json.NewDecoder(p.openAPI(t, "/openapi/v3", "").Body).Decode(&list))
	addresses := map[string]string{}
	for path, document := range list.Paths {
		addresses[path] = document.ServerRelativeURL
	}
	return addresses
}

func decoded(t *testing.T, what string, from io.Reader) map[string]any {
	t.Helper()
	var document map[string]any
	must(t, "decoding "+what, json.NewDecoder(from).Decode(&document))
	return document
}

// ships are custom resources with all that shows in a document.
func ships(description string) *apiextensionsv1.CustomResourceDefinition {
	text := apiextensionsv1.JSONSchemaProps{Type: "string"}
	schemaOf := func(more map[string]apiextensionsv1.JSONSchemaProps) *apiextensionsv1.CustomResourceValidation {
		properties := map[string]apiextensionsv1.JSONSchemaProps{
			"name": text,
			"masts": {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"id": text, "height": {Type: "integer", Default: &apiextensionsv1.JSON{Raw: []byte("10")}}}, Required: []string{"id"},
			}}, XListType: new("map"), XListMapKeys: []string{"id"}},
		}
		maps.Copy(properties, more)
		return &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
			Type: "object", Description: description,
			Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {Type: "object", Properties: properties}},
		}}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ships.harbour.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "harbour.example.com",
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ships", Singular: "ship", Kind: "Ship", ListKind: "ShipList"},
			Scope: apiextensionsv1.NamespaceScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{
					Name: "v1", Served: true, Storage: true, Schema: schemaOf(nil),
					SelectableFields: []apiextensionsv1.SelectableField{{JSONPath: ".spec.name"}},
					Subresources:     &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				},
				{Name: "v2", Served: true, Schema: schemaOf(map[string]apiextensionsv1.JSONSchemaProps{"flag": text})},
				{Name: "v0", Schema: schemaOf(nil)},
			},
		},
	}
}

func createShip(t *testing.T, p *plane, description string) {
	t.Helper()
	definitions := apiextensionsclient.NewForConfigOrDie(p.Config()).ApiextensionsV1().CustomResourceDefinitions()
	_, err := definitions.Create(t.Context(), ships(description), metav1.CreateOptions{})
	must(t, "creating a CRD", err)
	eventually(t, "documents of a CRD", func(context.Context) error {
		if _, ok := p.openAPIList(t)["apis/harbour.example.com/v2"]; !ok {
			return fmt.Errorf("no document")
		}
		return nil
	})
}

// TestForgettableDefinitions checks that the schemas of server-side apply are the
// same as those of upstream's definitions, also after the definitions were
// forgotten.
func TestForgettableDefinitions(t *testing.T) {
	_, config := openAPIConfigs()
	types := func(definitions map[string]openapicommon.OpenAPIDefinition) map[string]any {
		config.Definitions = definitions
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(definitions)), func(name string) bool {
			// Others are configuration of components, whose parts are not all there.
			return !strings.HasPrefix(name, "io.k8s.api.") && !strings.HasPrefix(name, "io.k8s.apiextensions-apiserver.")
		})
		built, err := builder3.BuildOpenAPIDefinitionsForResources(config, names...)
		must(t, "building definitions", err)
		converted, err := schemaconv.ToSchemaFromOpenAPI(built, false)
		must(t, "converting definitions", err)
		all := map[string]any{}
		for _, definition := range converted.Types {
			if definition.Map != nil {
				// They come in any order.
				fields := definition.Map.Fields
				sort.Slice(fields, func(i, j int) bool { return fields[i].Name < fields[j].Name })
			}
			all[definition.Name] = definition
		}
		return all
	}
	want := types(openAPIDefinitions(config))

	definitions := openAPIDefinitions(config)
	forget := forgettable(definitions)
	got := types(definitions)
	forget()
	if len(want) < 500 || len(got) != len(want) {
		t.Errorf("%d types, and %d of upstream", len(got), len(want))
	}
	for name := range want {
		if !reflect.DeepEqual(want[name], got[name]) {
			t.Errorf("%s is %+v, and upstream's is %+v", name, got[name], want[name])
		}
	}
}

// delegate is a server of the chain whose documents upstream builds.
type delegate struct {
	genericapiserver.DelegationTarget
	documents http.Handler
	next      genericapiserver.DelegationTarget
}

func (d delegate) UnprotectedHandler() http.Handler                { return d.documents }
func (d delegate) NextDelegate() genericapiserver.DelegationTarget { return d.next }
func (d delegate) ListedPaths() []string                           { return []string{"/openapi/v2"} }

// upstreamOpenAPI builds everything by upstream's own code, as it would have
// been as the API server starts.
func upstreamOpenAPI(t *testing.T, p *plane) (version2 http.Handler, version3 []http.Handler) {
	t.Helper()
	generic := p.server.config.KubeAPIs.ControlPlane.Generic
	v2, v3 := generic.OpenAPIConfig, *generic.OpenAPIV3Config
	v3.Definitions = openAPIDefinitions(&v3)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)

	kube, extensions, front := mux.NewPathRecorderMux("kube"), mux.NewPathRecorderMux("extensions"), mux.NewPathRecorderMux("front")
	aggregated := p.server.aggregator.GenericAPIServer.Handler.GoRestfulContainer
	install := func(server *genericapiserver.GenericAPIServer, into *mux.PathRecorderMux) (*routes.OpenAPI, *spec.Swagger) {
		_, static := routes.OpenAPI{Config: v2}.InstallV2(server.Handler.GoRestfulContainer, into)
		return &routes.OpenAPI{V3Config: &v3}, static
	}
	documents, _ := install(p.server.kube.ControlPlane.GenericAPIServer, kube)
	documents.InstallV3(p.server.kube.ControlPlane.GenericAPIServer.Handler.GoRestfulContainer, kube)

	crds := p.server.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions()
	service2, static := routes.OpenAPI{Config: v2}.InstallV2(p.server.extensions.GenericAPIServer.Handler.GoRestfulContainer, extensions)
	service3 := routes.OpenAPI{V3Config: &v3}.InstallV3(p.server.extensions.GenericAPIServer.Handler.GoRestfulContainer, extensions)
	go crdopenapi.NewController(crds).Run(static, service2, ctx.Done())
	go crdopenapiv3.NewController(crds).Run(service3, ctx.Done())

	chain := delegate{documents: kube, next: delegate{documents: extensions}}
	downloader := aggregatedopenapi.NewDownloader()
	_, err := aggregatedopenapi.BuildAndRegisterAggregator(&downloader, chain, aggregated.RegisteredWebServices(), v2, front)
	must(t, "building upstream's documents", err)
	own := mux.NewPathRecorderMux("own")
	routes.OpenAPI{V3Config: &v3}.InstallV3(aggregated, own)
	return front, []http.Handler{own, kube, extensions}
}

func testOpenAPIUpstream(t *testing.T, p *plane) {
	version2, version3 := upstreamOpenAPI(t, p)
	ask := func(handler http.Handler, path string) *httptest.ResponseRecorder {
		request := httptest.NewRequest(http.MethodGet, path, nil)
		request.Header.Set("Accept", "application/json")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		return response
	}
	var want map[string]any
	eventually(t, "upstream's document of a CRD", func(context.Context) error {
		want = decoded(t, "upstream's version 2", ask(version2, "/openapi/v2").Body)
		if _, ok := want["definitions"].(map[string]any)["com.example.harbour.v2.Ship"]; !ok {
			return fmt.Errorf("it lacks the custom resource")
		}
		return nil
	})
	if diff := cmp.Diff(want, p.openAPIDocument(t, "/openapi/v2")); diff != "" {
		t.Errorf("version 2 (-upstream +ours):\n%.4000s", diff)
	}

	addresses := p.openAPIList(t)
	wanted := map[string]map[string]any{}
	eventually(t, "upstream's list with the custom resource", func(context.Context) error {
		for _, handler := range version3 {
			var list handler3.OpenAPIV3Discovery
			must(t, "reading upstream's list", json.NewDecoder(ask(handler, "/openapi/v3").Body).Decode(&list))
			for path := range list.Paths {
				if wanted[path] == nil {
					wanted[path] = decoded(t, path, ask(handler, "/openapi/v3/"+path).Body)
				}
			}
		}
		if wanted["apis/harbour.example.com/v2"] == nil {
			return fmt.Errorf("it is not there")
		}
		return nil
	})
	if diff := cmp.Diff(slices.Sorted(maps.Keys(wanted)), slices.Sorted(maps.Keys(addresses))); diff != "" {
		t.Errorf("version 3 documents (-upstream +ours):\n%s", diff)
	}
	for path, want := range wanted {
		if diff := cmp.Diff(want, p.openAPIDocument(t, "/openapi/v3/"+path)); diff != "" {
			t.Errorf("version 3 of %s (-upstream +ours):\n%.2000s", path, diff)
		}
	}
	for _, path := range []string{"api/v1", "apis/apps/v1", "apis/harbour.example.com/v1", "apis/apiregistration.k8s.io/v1", "apis/apiextensions.k8s.io/v1", "version"} {
		if wanted[path] == nil {
			t.Errorf("upstream has no document for %s: nothing was compared", path)
		}
	}
}

// testOpenAPICustom: each change of a CRD shows, and only in its own documents.
func testOpenAPICustom(t *testing.T, p *plane) {
	const path = "apis/harbour.example.com/v1"
	definitions := apiextensionsclient.NewForConfigOrDie(p.Config()).ApiextensionsV1().CustomResourceDefinitions()
	before := p.openAPIList(t)
	v2 := p.openAPI(t, "/openapi/v2", "").Header.Get("Etag")
	if again := p.openAPIList(t); !maps.Equal(before, again) {
		t.Errorf("without a change hashes changed:\n%s", cmp.Diff(before, again))
	}
	describes := func(document map[string]any, text string) error {
		content, err := json.Marshal(document)
		if err == nil && !strings.Contains(string(content), text) {
			err = fmt.Errorf("the document lacks %q", text)
		}
		return err
	}

	ship, err := definitions.Get(t.Context(), "ships.harbour.example.com", metav1.GetOptions{})
	must(t, "reading a CRD", err)
	ship.Spec.Versions = ships("a seagoing ship").Spec.Versions
	_, err = definitions.Update(t.Context(), ship, metav1.UpdateOptions{})
	must(t, "changing a CRD", err)
	eventually(t, "the changed documents", func(context.Context) error {
		if err := describes(p.openAPIDocument(t, "/openapi/v2"), "a seagoing ship"); err != nil {
			return err
		}
		return describes(p.openAPIDocument(t, "/openapi/v3/"+path), "a seagoing ship")
	})
	after := p.openAPIList(t)
	for other := range before {
		if changed := before[other] != after[other]; changed != strings.HasPrefix(other, "apis/harbour.example.com/v") {
			t.Errorf("the hash of %s changed: %t", other, changed)
		}
	}
	if now := p.openAPI(t, "/openapi/v2", "").Header.Get("Etag"); now == v2 {
		t.Error("the ETag of version 2 did not change")
	}

	// Clients go where the list says, and keep for ever what they got.
	if response := p.openAPI(t, after[path], ""); response.StatusCode != http.StatusOK || !strings.Contains(response.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%s answers %s, with Cache-Control %q", after[path], response.Status, response.Header.Get("Cache-Control"))
	}
	if response := p.openAPI(t, before[path], ""); response.StatusCode != http.StatusMovedPermanently || response.Header.Get("Location") != after[path] {
		t.Errorf("%s answers %s and leads to %q, want %q", before[path], response.Status, response.Header.Get("Location"), after[path])
	}

	must(t, "deleting a CRD", definitions.Delete(t.Context(), ship.Name, metav1.DeleteOptions{}))
	eventually(t, "the documents go away", func(context.Context) error {
		if _, ok := p.openAPIList(t)[path]; ok {
			return fmt.Errorf("%s is still listed", path)
		}
		if response := p.openAPI(t, "/openapi/v3/"+path, ""); response.StatusCode != http.StatusNotFound {
			return fmt.Errorf("%s answers %s", path, response.Status)
		}
		if describes(p.openAPIDocument(t, "/openapi/v2"), "a seagoing ship") == nil {
			return fmt.Errorf("version 2 still has it")
		}
		return nil
	})
	createShip(t, p, "a ship")
}

// testOpenAPIProtobuf asks as client-go and kubectl do.
func testOpenAPIProtobuf(t *testing.T, p *plane) {
	document, err := p.client.Discovery().OpenAPISchema()
	must(t, "reading version 2", err)
	names := map[string]bool{}
	for _, definition := range document.Definitions.AdditionalProperties {
		names[definition.Name] = true
	}
	for _, name := range []string{"io.k8s.api.apps.v1.Deployment", "com.example.harbour.v1.Ship", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"} {
		if !names[name] {
			t.Errorf("version 2 lacks %s", name)
		}
	}
	paths, err := p.client.Discovery().OpenAPIV3().Paths()
	must(t, "listing version 3", err)
	for _, path := range []string{"api/v1", "apis/harbour.example.com/v1"} {
		content, err := paths[path].Schema("application/com.github.proto-openapi.spec.v3.v1.0+protobuf")
		must(t, "reading "+path, err)
		if len(content) < 1000 || json.Valid(content) {
			t.Errorf("%s has %d bytes", path, len(content))
		}
	}
	if response := p.openAPI(t, "/openapi/v3/api/v1", "text/html"); response.StatusCode != http.StatusNotAcceptable {
		t.Errorf("for text/html the answer is %s", response.Status)
	}
}

func testExplain(t *testing.T, p *plane) {
	for name, test := range map[string]struct {
		resource schema.GroupVersionResource
		fields   []string
		says     string
	}{
		"built in": {schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, []string{"spec", "replicas"}, "Number of desired pods"},
		"custom":   {schema.GroupVersionResource{Group: "harbour.example.com", Version: "v2", Resource: "ships"}, []string{"spec"}, "flag"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			must(t, "explaining", explain.PrintModelDescription(test.fields, &out, p.client.Discovery().OpenAPIV3(), test.resource, false, "plaintext"))
			if !strings.Contains(out.String(), test.says) {
				t.Errorf("the explanation lacks %q:\n%s", test.says, out.String())
			}
		})
	}
}

// testApply: lists merge by their keys, which only the schema tells, and fields
// have owners.
func testApply(t *testing.T, p *plane) {
	ctx := t.Context()
	apply := func(manager, container, image string) (*appsv1.Deployment, error) {
		patch := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"applied"},"spec":{"selector":{"matchLabels":{"a":"b"}},
			"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":%q,"image":%q}]}}}}`, container, image)
		return p.client.AppsV1().Deployments("default").Patch(ctx, "applied", types.ApplyPatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
	}
	_, err := apply("one", "first", "i1")
	must(t, "applying", err)
	merged, err := apply("two", "second", "i2")
	must(t, "applying as another one", err)
	if got := len(merged.Spec.Template.Spec.Containers); got != 2 {
		t.Errorf("%d containers, want both", got)
	}
	if _, err := apply("two", "first", "i3"); !apierrors.IsConflict(err) {
		t.Errorf("changing another one's field: %v", err)
	}

	resource := dynamic.NewForConfigOrDie(p.Config()).Resource(schema.GroupVersionResource{Group: "harbour.example.com", Version: "v1", Resource: "ships"}).Namespace("default")
	sail := func(manager, mast string, height int64) (*unstructured.Unstructured, error) {
		return resource.Apply(ctx, "santa-maria", &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "harbour.example.com/v1", "kind": "Ship", "metadata": map[string]any{"name": "santa-maria"},
			"spec": map[string]any{"masts": []any{map[string]any{"id": mast, "height": height}}},
		}}, metav1.ApplyOptions{FieldManager: manager})
	}
	eventually(t, "applying a custom resource", func(context.Context) error { _, err := sail("one", "main", 30); return err })
	ship, err := sail("two", "mizzen", 20)
	must(t, "applying as another one", err)
	if masts, _, _ := unstructured.NestedSlice(ship.Object, "spec", "masts"); len(masts) != 2 {
		t.Errorf("masts are %v, want both", masts)
	}
	if _, err := sail("two", "main", 1); !apierrors.IsConflict(err) {
		t.Errorf("changing another one's mast: %v", err)
	}
}

// testFieldValidation: the server refuses fields that it does not know, and
// clients that check by themselves find that they need not.
func testFieldValidation(t *testing.T, p *plane) {
	raw := func(path, body string) error {
		return p.client.CoreV1().RESTClient().Post().AbsPath(path).Param("fieldValidation", "Strict").
			SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	}
	if err := raw("/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"dada":{}}`); !apierrors.IsBadRequest(err) {
		t.Errorf("a field that there is not: %v", err)
	}
	if err := raw("/apis/harbour.example.com/v1/namespaces/default/ships", `{"apiVersion":"harbour.example.com/v1","kind":"Ship","metadata":{"name":"c"},"spec":{"dada":1}}`); !apierrors.IsBadRequest(err) {
		t.Errorf("a field that there is not in a custom resource: %v", err)
	}
	document := p.openAPIDocument(t, "/openapi/v3/api/v1")
	content, err := json.Marshal(document["paths"].(map[string]any)["/api/v1/namespaces/{namespace}/configmaps"])
	must(t, "encoding", err)
	if !strings.Contains(string(content), "fieldValidation") {
		t.Error("the document does not say that the server validates fields: kubectl would look for version 2")
	}
}

func testOpenAPIRights(t *testing.T, p *plane) {
	anyone := kubernetes.NewForConfigOrDie(p.Config())
	if _, err := anyone.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "control"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("the control: %v", err)
	}
	if err := p.as("someone", "system:authenticated").Discovery().RESTClient().Get().AbsPath("/openapi/v3").Do(t.Context()).Error(); err != nil {
		t.Errorf("the list for anybody who is known: %v", err)
	}
	for _, path := range []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"} {
		if err := p.as("system:anonymous", "system:unauthenticated").Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); !apierrors.IsForbidden(err) {
			t.Errorf("%s for somebody unknown: %v", path, err)
		}
	}
}

// testOpenAPIEgress: an API service names an address, so the way there is the
// fenced one.
func testOpenAPIEgress(t *testing.T, p *plane, gate *gatekeeper) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"paths":{"apis/far.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/far.example.com/v1?hash=X"}}}`)
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "https://")
	const closed = "192.0.2.11:443"
	gate.close(closed)
	of := func(group string) *apiregistrationv1.APIService {
		return &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: "v1." + group},
			Spec: apiregistrationv1.APIServiceSpec{
				Group: group, Version: "v1", InsecureSkipTLSVerify: true,
				Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: group},
			},
			Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}},
		}
	}
	// As the API server has it, but for what it finds in the API.
	options := p.server.openAPI.Options
	options.Remote = &openapi.Remote{
		Services: func() ([]*apiregistrationv1.APIService, error) {
			return []*apiregistrationv1.APIService{of("far.example.com"), of("closed.example.com")}, nil
		},
		Resolve: func(_, name string, _ int32) (*url.URL, error) {
			if name == "far.example.com" {
				return &url.URL{Host: address}, nil
			}
			return &url.URL{Host: closed}, nil
		},
		Certificate: options.Remote.Certificate,
		Dial:        options.Remote.Dial,
	}
	paths := mux.NewPathRecorderMux("egress")
	openapi.New(options).Install(paths)
	response := httptest.NewRecorder()
	paths.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/openapi/v3", nil))
	if list := response.Body.String(); !strings.Contains(list, "apis/far.example.com/v1") || strings.Contains(list, "apis/closed.example.com/v1") {
		t.Errorf("the list is %s", list)
	}
	for _, wanted := range []string{address, closed} {
		if !gate.saw(wanted) {
			t.Errorf("%s was called past the dialer", wanted)
		}
	}
}
