package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/aggregator"
	openapibuilder "k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"
)

// workshop holds what documents are built of, for as long as clients ask for
// them. Its mutex is held while something is being built.
type workshop struct {
	server *Server

	mu sync.Mutex
	// definitions of version 3.
	definitions map[string]common.OpenAPIDefinition
	// specs of version 2: of each server, of custom resources by their
	// identity, and of aggregated APIs by their ETag.
	servers []*spec.Swagger
	custom  map[string]*spec.Swagger
	remote  map[string]*spec.Swagger
	timer   clock.Timer
}

// touch keeps everything for a while longer.
func (w *workshop) touch() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = w.server.Clock.AfterFunc(workshopKeep, func() { go w.clear() })
}

func (w *workshop) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.definitions, w.servers, w.custom, w.remote, w.timer = nil, nil, nil, nil, nil
}

// serviceV3 is the document of one web service of a server.
func (w *workshop) serviceV3(service *restful.WebService) ([]byte, error) {
	defer w.touch()
	config := *w.server.V3
	if w.definitions == nil {
		w.definitions = config.GetDefinitions(func(name string) spec.Ref {
			defined, _ := config.GetDefinitionName(name)
			return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(defined))
		})
	}
	config.Definitions = w.definitions
	// Upstream's own way, with all that it does to a document.
	paths := mux.NewPathRecorderMux("openapi")
	routes.OpenAPI{V3Config: &config}.InstallV3(restful.NewContainer().Add(service), paths)
	request, err := http.NewRequest(http.MethodGet, pathV3+service.RootPath(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", mediaTypeJSON)
	response := &recorder{header: http.Header{}, status: http.StatusOK}
	paths.ServeHTTP(response, request)
	if response.status != http.StatusOK || response.body.Len() == 0 {
		return nil, fmt.Errorf("no document for %s, status %d", service.RootPath(), response.status)
	}
	return response.body.Bytes(), nil
}

// customV3 is the document of the custom resources of one group and version.
func (s *Server) customV3(versions []crdVersion) ([]byte, error) {
	var specs []*spec3.OpenAPI
	var errs []error
	for _, v := range versions {
		built, err := builder.BuildOpenAPIV3(v.crd, v.version, builder.Options{IncludeSelectableFields: s.SelectableFields})
		if err != nil {
			errs = append(errs, fmt.Errorf("CRD %q: %w", v.crd.Name, err))
			continue
		}
		specs = append(specs, built)
	}
	if len(specs) == 0 {
		return nil, errors.Join(errs...)
	}
	merged, err := builder.MergeSpecsV3(specs...)
	if err != nil {
		return nil, err
	}
	return json.Marshal(merged)
}

// buildV2 puts everything together, in the order in which the servers are asked.
func (s *Server) buildV2(ctx context.Context, crds []*apiextensionsv1.CustomResourceDefinition, remotes []remoteV2) ([]byte, error) {
	w := &s.workshop
	defer w.touch()
	if err := w.buildServersV2(); err != nil {
		return nil, err
	}
	specs := append([]*spec.Swagger(nil), w.servers...)
	if len(crds) > 0 {
		last := len(specs) - 1
		custom, err := w.customV2(specs[last], crds)
		if err != nil {
			return nil, err
		}
		specs[last] = custom
	}
	for _, remote := range remotes {
		published, err := w.remoteV2(ctx, remote)
		if err != nil {
			// The others must not suffer from one that does not answer.
			continue
		}
		specs = append(specs, published)
	}
	merged := &spec.Swagger{}
	*merged = *specs[0]
	merged.Paths, merged.Definitions, merged.Parameters = nil, nil, nil
	for _, part := range specs {
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(merged, part); err != nil {
			return nil, fmt.Errorf("merging: %w", err)
		}
	}
	return merged.MarshalJSON()
}

func (w *workshop) buildServersV2() error {
	if w.servers != nil {
		return nil
	}
	for _, container := range w.server.Servers {
		built, err := openapibuilder.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(container.RegisteredWebServices()), w.server.V2)
		if err != nil {
			w.servers = nil
			return err
		}
		built.Definitions = handler.PruneDefaults(built.Definitions)
		w.servers = append(w.servers, built)
	}
	return nil
}

// customV2 adds the custom resources to those of the server that has them.
func (w *workshop) customV2(static *spec.Swagger, crds []*apiextensionsv1.CustomResourceDefinition) (*spec.Swagger, error) {
	built := map[string]*spec.Swagger{}
	var specs []*spec.Swagger
	for _, crd := range crds {
		identity := identityOf(crd)
		published := w.custom[identity]
		if published == nil {
			var err error
			if published, err = w.server.crdV2(crd); err != nil {
				continue // it has conditions that say what is wrong with it
			}
		}
		built[identity] = published
		specs = append(specs, published)
	}
	w.custom = built
	return builder.MergeSpecs(static, specs...)
}

func (s *Server) crdV2(crd *apiextensionsv1.CustomResourceDefinition) (*spec.Swagger, error) {
	merged := &spec.Swagger{}
	for _, v := range crd.Spec.Versions {
		if !v.Served {
			continue
		}
		built, err := builder.BuildOpenAPIV2(crd, v.Name, builder.Options{V2: true, IncludeSelectableFields: s.SelectableFields})
		if err != nil {
			return nil, err
		}
		built.Definitions = handler.PruneDefaults(built.Definitions)
		if merged, err = builder.MergeSpecs(merged, built); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// remoteV2 is what an aggregated API publishes of its own group and version.
func (w *workshop) remoteV2(ctx context.Context, remote remoteV2) (*spec.Swagger, error) {
	key := remote.service.Name + " " + remote.etag
	if have := w.remote[key]; have != nil {
		return have, nil
	}
	published, err := w.server.Remote.downloadV2(ctx, remote.service)
	if err != nil {
		return nil, err
	}
	published = aggregator.FilterSpecByPathsWithoutSideEffects(published, []string{"/" + pathOfService(remote.service) + "/"})
	if w.remote == nil {
		w.remote = map[string]*spec.Swagger{}
	}
	w.remote[key] = published
	return published, nil
}

// convertedV3 is a version 3 document of an aggregated API that has only
// version 2.
func (s *Server) convertedV3(path string, remote remoteV3) document {
	return document{
		key:     pathV3 + "/" + path,
		etag:    remote.etag,
		toProto: protoV3,
		build: func(ctx context.Context) ([]byte, error) {
			published, err := s.Remote.downloadV2(ctx, remote.service)
			if err != nil {
				return nil, err
			}
			return json.Marshal(openapiconv.ConvertV2ToV3(published))
		},
	}
}

// recorder keeps a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header of the response.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader keeps the status.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write adds to the body.
func (r *recorder) Write(content []byte) (int, error) { return r.body.Write(content) }
