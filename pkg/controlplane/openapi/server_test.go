package openapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emicklei/go-restful/v3"
	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/mux"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	clocktesting "k8s.io/utils/clock/testing"
)

// Boat is a kind of the server under test.
type Boat struct {
	Name string `json:"name"`
}

// boats is an API server with one kind and a page without any.
func boats() *restful.Container {
	service := new(restful.WebService).Path("/apis/sea/v1")
	service.Route(service.GET("/boats/{name}").Operation("readBoat").Param(service.PathParameter("name", "the boat's")).
		Produces("application/json").Writes(Boat{}).Returns(http.StatusOK, "OK", Boat{}).To(func(*restful.Request, *restful.Response) {}))
	version := new(restful.WebService).Path("/version")
	version.Route(version.GET("/").Operation("getVersion").Produces("application/json").Writes("").Returns(http.StatusOK, "OK", "").To(func(*restful.Request, *restful.Response) {}))
	return restful.NewContainer().Add(service).Add(version)
}

// world is a Server with all that it looks at.
type world struct {
	*Server
	mux   *mux.PathRecorderMux
	clock *clocktesting.FakeClock
	crds  []*apiextensionsv1.CustomResourceDefinition
	// built counts how often definitions were made, as they are for each
	// document that is not there.
	built atomic.Int32
}

func newWorld(t *testing.T, remote *Remote) *world {
	t.Helper()
	w := &world{mux: mux.NewPathRecorderMux("test"), clock: clocktesting.NewFakeClock(time.Now())}
	definitions := func(common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		w.built.Add(1)
		boat := spec.Schema{SchemaProps: spec.SchemaProps{
			Description: "Boat floats.", Type: []string{"object"},
			Properties: map[string]spec.Schema{"name": {SchemaProps: spec.SchemaProps{Type: []string{"string"}}}},
		}}
		return map[string]common.OpenAPIDefinition{
			"github.com/sublet-dev/sublet/pkg/controlplane/openapi.Boat": {Schema: boat},
		}
	}
	name := func(name string) (string, spec.Extensions) { return name[strings.LastIndex(name, "/")+1:], nil }
	operation := func(r common.Route) (string, []string, error) { return r.OperationName(), nil, nil }
	info := &spec.Info{InfoProps: spec.InfoProps{Title: "Test", Version: "v1"}}
	w.Server = New(Options{
		Servers:  []*restful.Container{boats()},
		V2:       &common.Config{Info: info, GetDefinitions: definitions, GetDefinitionName: name, GetOperationIDAndTagsFromRoute: operation},
		V3:       &common.OpenAPIV3Config{Info: info, GetDefinitions: definitions, GetDefinitionName: name, GetOperationIDAndTagsFromRoute: operation},
		Identity: "test",
		CRDs:     func() ([]*apiextensionsv1.CustomResourceDefinition, error) { return w.crds, nil },
		Remote:   remote,
		Clock:    w.clock,
	})
	w.Install(w.mux)
	return w
}

// get asks like a client, as somebody.
func (w *world) get(path string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r = r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: "ada", Groups: []string{"crew"}}))
	response := httptest.NewRecorder()
	w.mux.ServeHTTP(response, r)
	return response.Result()
}

func (w *world) document(t *testing.T, path string) map[string]any {
	t.Helper()
	response := w.get(path)
	var document map[string]any
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil {
		t.Fatalf("%s answers %s: %v", path, response.Status, err)
	}
	return document
}

func (w *world) list(t *testing.T) map[string]string {
	t.Helper()
	var list handler3.OpenAPIV3Discovery
	if err := json.NewDecoder(w.get(pathV3).Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for path, document := range list.Paths {
		paths[path] = document.ServerRelativeURL
	}
	return paths
}

func crd(name string, generation int64) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: name + "s.sea.example.com", UID: types.UID(name), Generation: generation},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "sea.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: name + "s", Kind: strings.ToUpper(name[:1]) + name[1:], ListKind: name + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Description: fmt.Sprintf("%s %d", name, generation)}},
			}},
		},
		Status: apiextensionsv1.CustomResourceDefinitionStatus{Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
		}}},
	}
}

// TestListBuildsNothing: neither the list nor what a client has already needs a
// document.
func TestListBuildsNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.crds = []*apiextensionsv1.CustomResourceDefinition{crd("whale", 1)}
	list := w.list(t)
	if diff := cmp.Diff([]string{"apis/sea.example.com/v1", "apis/sea/v1", "version"}, slices.Sorted(maps.Keys(list))); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	for _, path := range append(slices.Collect(maps.Values(list)), pathV2) {
		address, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		etag := address.Query().Get("hash")
		if path == pathV2 {
			etag = strings.Trim(w.get(path, "If-None-Match", `"other"`).Header.Get("Etag"), `"`)
			w.built.Store(0)
		}
		response := w.get(path, "If-None-Match", `"other", W/"`+etag+`"`)
		if response.StatusCode != http.StatusNotModified {
			t.Errorf("%s for who has it already answers %s", path, response.Status)
		}
	}
	if w.built.Load() != 0 {
		t.Errorf("definitions were made %d times", w.built.Load())
	}
}

func TestContent(t *testing.T) {
	w := newWorld(t, nil)
	w.crds = []*apiextensionsv1.CustomResourceDefinition{crd("whale", 1)}
	schemas := w.document(t, w.list(t)["apis/sea/v1"])["components"].(map[string]any)["schemas"].(map[string]any)
	if got := schemas["openapi.Boat"].(map[string]any)["description"]; got != "Boat floats." {
		t.Errorf("the kind is described as %q", got)
	}
	definitions := w.document(t, pathV2)["definitions"].(map[string]any)
	for _, name := range []string{"openapi.Boat", "com.example.sea.v1.Whale"} {
		if definitions[name] == nil {
			t.Errorf("version 2 lacks %s", name)
		}
	}

	plain, err := io.ReadAll(w.get(pathV2).Body)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]bool{"gzip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "identity": false, "": false} {
		response := w.get(pathV2, "Accept-Encoding", header)
		var body io.Reader = response.Body
		if got := response.Header.Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("Accept-Encoding %q gets gzip: %t", header, got)
		} else if got {
			if body, err = gzip.NewReader(response.Body); err != nil {
				t.Fatal(err)
			}
		}
		if content, err := io.ReadAll(body); err != nil || string(content) != string(plain) {
			t.Errorf("Accept-Encoding %q gets something else (%v)", header, err)
		}
		if !strings.Contains(response.Header.Get("Vary"), "Accept-Encoding") {
			t.Errorf("Vary is %q: caches would mix up the forms", response.Header.Get("Vary"))
		}
	}
	for accept, want := range map[string]string{
		"":                 "application/json",
		"*/*":              "application/json",
		"application/json": "application/json",
		"application/com.github.proto-openapi.spec.v2@v1.0+protobuf":                               "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
		"application/com.github.proto-openapi.spec.v2.v1.0+protobuf":                               "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
		"application/json;q=0.2, application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=0.9": "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
		"text/html": "",
	} {
		response := w.get(pathV2, "Accept", accept)
		if want == "" && response.StatusCode == http.StatusNotAcceptable {
			continue
		}
		if got := response.Header.Get("Content-Type"); got != want {
			t.Errorf("Accept %q gets %q (%s), want %q", accept, got, response.Status, want)
		}
	}
}

// TestKept: documents are built once, again when they change, and go away when
// nobody asks for them.
func TestKept(t *testing.T) {
	w := newWorld(t, nil)
	ask := func() { w.document(t, "/openapi/v3/apis/sea/v1"); w.document(t, pathV2) }
	ask()
	first := w.built.Load()
	ask()
	if w.built.Load() != first {
		t.Error("a document that is there was built again")
	}
	w.crds = []*apiextensionsv1.CustomResourceDefinition{crd("whale", 1)}
	before := w.list(t)["apis/sea.example.com/v1"]
	w.crds[0] = crd("whale", 2)
	if w.list(t)["apis/sea.example.com/v1"] == before {
		t.Error("a changed CRD has the old hash")
	}
	if got := w.document(t, "/openapi/v3/apis/sea.example.com/v1")["components"].(map[string]any)["schemas"].(map[string]any)["com.example.sea.v1.Whale"].(map[string]any)["description"]; got != "whale 2" {
		t.Errorf("the changed CRD is described as %q", got)
	}

	w.clock.Step(workshopKeep)
	eventually(t, "what documents are built of goes away", func() bool { return !w.workshop.holds() })
	w.clock.Step(w.Keep - workshopKeep - time.Second)
	w.document(t, "/openapi/v3/apis/sea/v1")
	w.clock.Step(time.Second)
	eventually(t, "documents that nobody asked for go away", func() bool {
		return slices.Equal(w.cache.keys(), []string{pathV3 + "/apis/sea/v1"}) && w.clock.HasWaiters()
	})
	w.clock.Step(w.Keep)
	eventually(t, "all documents go away, and no timer runs for nothing", func() bool {
		return len(w.cache.keys()) == 0 && !w.clock.HasWaiters()
	})
	ask()
	if w.built.Load() == first {
		t.Error("nothing was built although nothing was there")
	}
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not", what)
		}
	}
}

func (w *workshop) holds() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.definitions != nil || w.servers != nil || w.custom != nil || w.remote != nil
}

func (c *cache) keys() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.entries))
}

func TestAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	var asking sync.WaitGroup
	for i := range 20 {
		asking.Go(func() {
			path := []string{pathV2, "/openapi/v3/apis/sea/v1"}[i%2]
			if response := w.get(path); response.StatusCode != http.StatusOK {
				t.Errorf("%s answers %s", path, response.Status)
			}
		})
	}
	asking.Wait()
	if got := w.built.Load(); got > 3 {
		t.Errorf("definitions were made %d times for two documents", got)
	}
}

func TestNoCRDs(t *testing.T) {
	w := newWorld(t, nil)
	w.Options.CRDs = func() ([]*apiextensionsv1.CustomResourceDefinition, error) { return nil, errors.New("not read yet") }
	for _, path := range []string{pathV2, pathV3, "/openapi/v3/apis/sea/v1"} {
		if response := w.get(path); response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s answers %s: a client would believe that there are none", path, response.Status)
		}
	}
}

// aggregated is an API server behind the aggregator.
type aggregated struct {
	*httptest.Server
	onlyV2 bool
	fails  atomic.Bool
	asked  atomic.Int32
	users  sync.Map
	title  atomic.Value
}

func newAggregated(t *testing.T, group string, onlyV2 bool) *aggregated {
	a := &aggregated{onlyV2: onlyV2}
	a.title.Store("first")
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		a.users.Store(r.Header.Get("X-Remote-User"), true)
		switch {
		case a.fails.Load():
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == pathV2:
			_, _ = fmt.Fprintf(w, `{"swagger":"2.0","info":{"title":%q,"version":"v1"},"paths":{"/apis/%s/v1/fish":{"get":{"operationId":"readFish","responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/%s.Fish"}}}}},"/other":{"get":{"responses":{"200":{"description":"OK"}}}}},"definitions":{"%s.Fish":{"type":"object","description":%q}}}`,
				group, group, group, group, a.title.Load())
		case r.URL.Path == pathV3 && !a.onlyV2:
			_, _ = fmt.Fprintf(w, `{"paths":{"apis/%s/v1":{"serverRelativeURL":"/openapi/v3/apis/%s/v1?hash=REMOTE"}}}`, group, group)
		case r.URL.Path == pathV3+"/apis/"+group+"/v1" && !a.onlyV2:
			_, _ = fmt.Fprintf(w, `{"openapi":"3.0.0","asked":%q}`, r.URL.RawQuery)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// remoteOf reaches servers by the name of their group.
func remoteOf(t *testing.T, servers map[string]*aggregated) (*Remote, *[]*apiregistrationv1.APIService) {
	services := &[]*apiregistrationv1.APIService{{ObjectMeta: metav1.ObjectMeta{Name: "v1.sea"}, Spec: apiregistrationv1.APIServiceSpec{Group: "sea", Version: "v1"}}}
	for group, server := range servers {
		*services = append(*services, &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: "v1." + group, UID: types.UID(group), ResourceVersion: "1"},
			Spec: apiregistrationv1.APIServiceSpec{
				Group: group, Version: "v1", CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
				// httptest has a certificate for this name.
				Service: &apiregistrationv1.ServiceReference{Name: group, Namespace: "ns"}, InsecureSkipTLSVerify: true,
			},
			Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}},
		})
	}
	for _, service := range (*services)[1:] {
		service.Spec.CABundle = nil
	}
	return &Remote{
		Services: func() ([]*apiregistrationv1.APIService, error) { return slices.Clone(*services), nil },
		Resolve: func(namespace, name string, port int32) (*url.URL, error) {
			if namespace != "ns" || port != 443 || servers[name] == nil {
				return nil, fmt.Errorf("no service %s/%s:%d", namespace, name, port)
			}
			return url.Parse(servers[name].URL)
		},
		Certificate: func() (cert, key []byte) { return nil, nil },
	}, services
}

func TestAggregated(t *testing.T) {
	servers := map[string]*aggregated{"new.example.com": newAggregated(t, "new.example.com", false), "old.example.com": newAggregated(t, "old.example.com", true)}
	remote, services := remoteOf(t, servers)
	w := newWorld(t, remote)

	list := w.list(t)
	if diff := cmp.Diff([]string{"apis/new.example.com/v1", "apis/old.example.com/v1", "apis/sea/v1", "version"}, slices.Sorted(maps.Keys(list))); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
	if want := "/openapi/v3/apis/new.example.com/v1?hash=REMOTE"; list["apis/new.example.com/v1"] != want {
		t.Errorf("the address of another server's document is %q, want its own", list["apis/new.example.com/v1"])
	}
	if got := w.document(t, list["apis/new.example.com/v1"])["asked"]; got != "hash=REMOTE" {
		t.Errorf("the other server was asked for %q", got)
	}
	if _, ok := servers["new.example.com"].users.Load("ada"); !ok {
		t.Error("the other server does not know who asks")
	}
	if w.document(t, list["apis/old.example.com/v1"])["components"].(map[string]any)["schemas"].(map[string]any)["old.example.com.Fish"] == nil {
		t.Error("version 2 was not converted")
	}
	version2 := w.document(t, pathV2)
	for _, name := range []string{"openapi.Boat", "new.example.com.Fish", "old.example.com.Fish"} {
		if version2["definitions"].(map[string]any)[name] == nil {
			t.Errorf("version 2 lacks %s", name)
		}
	}
	if version2["paths"].(map[string]any)["/other"] != nil {
		t.Error("another server publishes a path that is not of its group")
	}

	t.Run("not asked again soon", func(t *testing.T) {
		before := servers["new.example.com"].asked.Load()
		w.list(t)
		w.get(pathV2)
		if now := servers["new.example.com"].asked.Load(); now != before {
			t.Errorf("it was asked %d times more", now-before)
		}
	})
	t.Run("changed", func(t *testing.T) {
		etag := w.get(pathV2).Header.Get("Etag")
		servers["old.example.com"].title.Store("second")
		w.clock.Step(remoteFresh)
		if w.get(pathV2).Header.Get("Etag") == etag {
			t.Error("the ETag is the old one")
		}
		if got := w.document(t, pathV2)["definitions"].(map[string]any)["old.example.com.Fish"].(map[string]any)["description"]; got != "second" {
			t.Errorf("the document says %q", got)
		}
		if w.list(t)["apis/old.example.com/v1"] == list["apis/old.example.com/v1"] {
			t.Error("the hash of the converted document is the old one")
		}
	})
	t.Run("broken", func(t *testing.T) {
		servers["new.example.com"].fails.Store(true)
		w.clock.Step(remoteFresh)
		if got := w.list(t); got["apis/new.example.com/v1"] == "" || got["apis/sea/v1"] == "" {
			t.Errorf("the list lacks what was known: %v", got)
		}
		servers["new.example.com"].fails.Store(false)
	})
	t.Run("unavailable", func(t *testing.T) {
		for _, service := range *services {
			if service.Name == "v1.new.example.com" {
				service.Status.Conditions[0].Status = apiregistrationv1.ConditionFalse
			}
		}
		if got := w.list(t)["apis/new.example.com/v1"]; got != "" {
			t.Errorf("it is still listed: %q", got)
		}
		if response := w.get("/openapi/v3/apis/new.example.com/v1"); response.StatusCode != http.StatusNotFound {
			t.Errorf("its document answers %s", response.Status)
		}
	})
}

// TestForwardKeepsToItself: who asks cannot pretend to be somebody else to an
// aggregated API.
func TestForwardKeepsToItself(t *testing.T) {
	server := newAggregated(t, "new.example.com", false)
	remote, _ := remoteOf(t, map[string]*aggregated{"new.example.com": server})
	w := newWorld(t, remote)
	if response := w.get("/openapi/v3/apis/new.example.com/v1", "X-Remote-User", "root", "X-Remote-Group", "system:masters"); response.StatusCode != http.StatusOK {
		t.Fatalf("answers %s", response.Status)
	}
	if _, ok := server.users.Load("root"); ok {
		t.Error("the other server believes that root asks")
	}
	if _, ok := server.users.Load("ada"); !ok {
		t.Error("the other server does not know who asks")
	}
}

func TestHasAlready(t *testing.T) {
	for header, want := range map[string]bool{`"a"`: true, `W/"a"`: true, `"b", "a"`: true, `"b"`: false, `a`: false, "": false} {
		r := httptest.NewRequest(http.MethodGet, pathV2, nil).WithContext(context.Background())
		r.Header.Set("If-None-Match", header)
		if got := hasAlready(r, "a"); got != want {
			t.Errorf("%s: %t", strconv.Quote(header), got)
		}
	}
}
