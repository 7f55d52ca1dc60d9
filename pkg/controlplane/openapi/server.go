package openapi

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"
	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	endpointmetrics "k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/utils/clock"
)

const (
	pathV2 = "/openapi/v2"
	pathV3 = "/openapi/v3"

	defaultKeep = 10 * time.Minute
	// workshopKeep is how long parsed definitions outlive the last document that
	// was built of them; a client often asks for several in a row.
	workshopKeep = 20 * time.Second
)

// Options of a Server. Those without a stated default are required.
type Options struct {
	// Servers are the API servers of the chain, the one that is asked first
	// first. The last one publishes the custom resources.
	Servers []*restful.Container
	// V2 and V3 say how documents are built.
	V2 *common.Config
	V3 *common.OpenAPIV3Config
	// Identity changes with whatever changes the documents of the servers
	// themselves: the version, feature gates, which groups are served.
	Identity string
	// CRDs are all that there are.
	CRDs func() ([]*apiextensionsv1.CustomResourceDefinition, error)
	// SelectableFields tells whether documents name them.
	SelectableFields bool
	// Remote are the aggregated APIs; nil means that there are none.
	Remote *Remote
	// Keep is how long a document is kept after it was last asked for. The
	// default is ten minutes.
	Keep time.Duration
	// Clock is the real one by default.
	Clock clock.WithDelayedExecution
}

// Server answers for /openapi/v2 and /openapi/v3.
type Server struct {
	Options
	// static are the version 3 documents of the servers themselves, by path.
	static map[string]staticDocument
	cache  *cache

	workshop workshop
}

// staticDocument is what one web service of one server publishes.
type staticDocument struct {
	service *restful.WebService
	etag    string
}

// document is what a client may ask for, perhaps not built yet.
type document struct {
	key, etag string
	// build returns JSON.
	build func(ctx context.Context) ([]byte, error)
	// toProto converts what build returned.
	toProto func(json []byte) ([]byte, error)
}

// New returns a server; it builds nothing.
func New(o Options) *Server {
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	s := &Server{Options: o, static: map[string]staticDocument{}}
	s.cache = newCache(o.Clock, o.Keep)
	s.workshop = workshop{server: s}
	for _, container := range o.Servers {
		for _, service := range container.RegisteredWebServices() {
			path := strings.TrimPrefix(service.RootPath(), "/")
			if _, known := s.static[path]; !known {
				s.static[path] = staticDocument{service: service, etag: hash(o.Identity, path)}
			}
		}
	}
	return s
}

// Install serves the paths of OpenAPI.
func (s *Server) Install(mux *mux.PathRecorderMux) {
	mux.Handle(pathV2, instrumented("openapi/v2", s.serveV2))
	mux.Handle(pathV3, instrumented("openapi/v3", s.serveV3List))
	mux.HandlePrefix(pathV3+"/", instrumented("openapi/v3/", s.serveV3))
}

// instrumented counts requests in the metrics under the names that upstream has.
func instrumented(name string, handler http.HandlerFunc) http.Handler {
	return endpointmetrics.InstrumentHandlerFunc(http.MethodGet, "", "", "", name, "", "", false, "", handler)
}

func (s *Server) serveV2(w http.ResponseWriter, r *http.Request) {
	document, err := s.documentV2(r.Context())
	if err != nil {
		unavailable(w, r, err)
		return
	}
	s.serve(w, r, document, mediaTypesV2())
}

// serveV3List lists the version 3 documents with their hashes.
func (s *Server) serveV3List(w http.ResponseWriter, r *http.Request) {
	local, err := s.localV3()
	if err != nil {
		unavailable(w, r, err)
		return
	}
	list := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	if s.Remote != nil {
		for path, remote := range s.Remote.listV3(r.Context(), s.Clock) {
			list.Paths[path] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: remote.url}
		}
	}
	for path, document := range local {
		list.Paths[path] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: urlV3(path, document.etag)}
	}
	content, err := json.Marshal(list)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	respond(w, r, content, hash(string(content)))
}

func (s *Server) serveV3(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, pathV3+"/")
	local, err := s.localV3()
	if err != nil {
		unavailable(w, r, err)
		return
	}
	document, ok := local[path]
	if !ok && s.Remote != nil {
		if remote, found := s.Remote.listV3(r.Context(), s.Clock)[path]; found {
			if !remote.converted {
				s.Remote.forward(w, r, remote.service)
				return
			}
			document, ok = s.convertedV3(path, remote), true
		}
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if wanted := r.URL.Query().Get("hash"); wanted != "" {
		if wanted != document.etag {
			http.Redirect(w, r, urlV3(path, document.etag), http.StatusMovedPermanently)
			return
		}
		// What has a hash in its address never changes.
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", s.Clock.Now().AddDate(1, 0, 0).Format(time.RFC1123))
	}
	s.serve(w, r, document, mediaTypesV3())
}

// localV3 are the version 3 documents of this control plane, by path.
func (s *Server) localV3() (map[string]document, error) {
	documents := map[string]document{}
	for path, static := range s.static {
		documents[path] = document{
			key:     pathV3 + "/" + path,
			etag:    static.etag,
			toProto: protoV3,
			build:   func(context.Context) ([]byte, error) { return s.workshop.serviceV3(static.service) },
		}
	}
	crds, err := s.establishedCRDs()
	if err != nil {
		return nil, err
	}
	for path, versions := range byPath(crds) {
		if _, taken := documents[path]; taken {
			continue
		}
		parts := []string{s.Identity, path}
		for _, v := range versions {
			parts = append(parts, identityOf(v.crd))
		}
		documents[path] = document{
			key:     pathV3 + "/" + path,
			etag:    hash(parts...),
			toProto: protoV3,
			build:   func(context.Context) ([]byte, error) { return s.customV3(versions) },
		}
	}
	return documents, nil
}

// documentV2 is the one document of version 2.
func (s *Server) documentV2(ctx context.Context) (document, error) {
	crds, err := s.establishedCRDs()
	if err != nil {
		return document{}, err
	}
	parts := []string{s.Identity}
	for _, crd := range crds {
		parts = append(parts, identityOf(crd))
	}
	var remotes []remoteV2
	if s.Remote != nil {
		remotes = s.Remote.listV2(ctx, s.Clock)
	}
	for _, remote := range remotes {
		parts = append(parts, remote.service.Name, remote.etag)
	}
	return document{
		key:     pathV2,
		etag:    hash(parts...),
		toProto: protoV2,
		build:   func(ctx context.Context) ([]byte, error) { return s.buildV2(ctx, crds, remotes) },
	}, nil
}

// establishedCRDs are sorted by name.
func (s *Server) establishedCRDs() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	all, err := s.CRDs()
	if err != nil {
		return nil, fmt.Errorf("listing CRDs: %w", err)
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, crd := range all {
		if apiextensionshelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
			crds = append(crds, crd)
		}
	}
	slices.SortFunc(crds, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	return crds, nil
}

// identityOf changes whenever the specification of a CRD does.
func identityOf(crd *apiextensionsv1.CustomResourceDefinition) string {
	return fmt.Sprintf("%s %s %d", crd.Name, crd.UID, crd.Generation)
}

// crdVersion is a version of a CRD that is served.
type crdVersion struct {
	crd     *apiextensionsv1.CustomResourceDefinition
	version string
}

func byPath(crds []*apiextensionsv1.CustomResourceDefinition) map[string][]crdVersion {
	versions := map[string][]crdVersion{}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if v.Served {
				path := pathOf(crd.Spec.Group, v.Name)
				versions[path] = append(versions[path], crdVersion{crd: crd, version: v.Name})
			}
		}
	}
	return versions
}

func pathOf(group, version string) string { return "apis/" + group + "/" + version }

func pathOfService(service *apiregistrationv1.APIService) string {
	return pathOf(service.Spec.Group, service.Spec.Version)
}

func urlV3(path, etag string) string {
	return (&url.URL{Path: pathV3 + "/" + path, RawQuery: url.Values{"hash": {etag}}.Encode()}).String()
}

// hash is of the length that clients know from upstream.
func hash(parts ...string) string {
	sum := sha512.New()
	for _, part := range parts {
		// Quoted, so that the bounds of the parts count.
		_, _ = fmt.Fprintf(sum, "%q\n", part)
	}
	return fmt.Sprintf("%X", sum.Sum(nil))
}

func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		klog.FromContext(r.Context()).Error(err, "An OpenAPI document cannot be served", "path", r.URL.Path)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// served is the content of a document in one media type.
type served struct {
	compressed []byte
	etag       string
}

// content returns a document in a media type, from the cache or newly built.
func (s *Server) content(ctx context.Context, d document, proto bool) (served, error) {
	key := d.key
	if proto {
		key += " proto"
	}
	if have, ok := s.cache.get(key, d.etag); ok {
		return have, nil
	}
	// One at a time: they are big while they are being built.
	s.workshop.mu.Lock()
	defer s.workshop.mu.Unlock()
	if have, ok := s.cache.get(key, d.etag); ok {
		return have, nil
	}
	content, err := s.buildJSON(ctx, d)
	if err != nil {
		return served{}, err
	}
	if proto {
		if content, err = d.toProto(content); err != nil {
			return served{}, fmt.Errorf("converting %s: %w", d.key, err)
		}
	}
	return s.cache.put(key, d.etag, content)
}

// buildJSON takes the JSON from the cache if it is there: a client that wants
// the other media type often comes second.
func (s *Server) buildJSON(ctx context.Context, d document) ([]byte, error) {
	if have, ok := s.cache.get(d.key, d.etag); ok {
		return decompress(have.compressed)
	}
	content, err := d.build(ctx)
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", d.key, err)
	}
	return content, nil
}

// cache keeps compressed documents until nobody has asked for them for a while.
// It has a timer only while it holds something.
type cache struct {
	clock clock.WithDelayedExecution
	keep  time.Duration

	mu      sync.Mutex
	entries map[string]*cacheEntry
	timer   clock.Timer
}

type cacheEntry struct {
	served
	used time.Time
}

func newCache(c clock.WithDelayedExecution, keep time.Duration) *cache {
	return &cache{clock: c, keep: keep, entries: map[string]*cacheEntry{}}
}

func (c *cache) get(key, etag string) (served, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries[key]
	if !ok || entry.etag != etag {
		return served{}, false
	}
	entry.used = c.clock.Now()
	return entry.served, true
}

func (c *cache) put(key, etag string, content []byte) (served, error) {
	compressed, err := compress(content)
	if err != nil {
		return served{}, err
	}
	entry := &cacheEntry{served: served{compressed: compressed, etag: etag}, used: c.clock.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[key] = entry
	c.arm()
	return entry.served, nil
}

func (c *cache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	maps.DeleteFunc(c.entries, func(_ string, entry *cacheEntry) bool { return now.Sub(entry.used) >= c.keep })
	c.timer = nil
	if len(c.entries) > 0 {
		c.arm()
	}
}

// arm is called with the mutex held.
func (c *cache) arm() {
	if c.timer == nil {
		c.timer = c.clock.AfterFunc(c.keep, func() { go c.expire() })
	}
}
