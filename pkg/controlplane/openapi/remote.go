package openapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationhelper "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"
)

const (
	// remoteFresh is for how long an aggregated API is believed to publish what
	// it did, remoteRetry how soon it is asked again when it did not answer.
	remoteFresh = time.Minute
	remoteRetry = 10 * time.Second
	// remoteTimeout bounds how long one that does not answer holds up others.
	remoteTimeout = 10 * time.Second
	// remoteLimit is far above any document there is.
	remoteLimit = 64 << 20

	// aggregatorUser is who asks, as upstream has it.
	aggregatorUser = "system:aggregator"
)

// Remote are the aggregated APIs. All fields but the last are required.
type Remote struct {
	// Services are all API services, local ones too.
	Services func() ([]*apiregistrationv1.APIService, error)
	// Resolve finds the server of a Service.
	Resolve func(namespace, name string, port int32) (*url.URL, error)
	// Certificate is that of the aggregator as a client.
	Certificate func() (cert, key []byte)
	// Dial opens connections; nil means the network's.
	Dial *transport.DialHolder

	mu    sync.Mutex
	known map[string]*remoteState
}

// remoteState is what an API service was last seen to publish.
type remoteState struct {
	// version is of the API service.
	version string
	v3, v2  finding
}

// finding is the result of asking for one thing.
type finding struct {
	// next is when to ask again; ok tells whether there was ever an answer.
	next time.Time
	ok   bool
	// paths are the version 3 documents with their addresses. Without any, the
	// server has version 2 only.
	paths map[string]string
	// etag is that of the version 2 document.
	etag string
}

// remoteV3 is a version 3 document of an aggregated API.
type remoteV3 struct {
	service *apiregistrationv1.APIService
	url     string
	// converted documents are made here of version 2, with this ETag.
	converted bool
	etag      string
}

// remoteV2 is the version 2 document of an aggregated API.
type remoteV2 struct {
	service *apiregistrationv1.APIService
	etag    string
}

// listV3 returns the documents by path. It waits for API services that have not
// been asked for a while.
func (r *Remote) listV3(ctx context.Context, c clock.PassiveClock) map[string]remoteV3 {
	services := r.available(ctx)
	listed := r.find(ctx, c, services, func(s *remoteState) *finding { return &s.v3 }, r.askV3)
	var old []*apiregistrationv1.APIService
	documents := map[string]remoteV3{}
	for _, service := range services {
		found, ok := listed[service.Name]
		if ok && found.paths == nil {
			old = append(old, service)
		}
		for path, address := range found.paths {
			documents[path] = remoteV3{service: service, url: address}
		}
	}
	if len(old) == 0 {
		return documents
	}
	versions2 := r.find(ctx, c, old, func(s *remoteState) *finding { return &s.v2 }, r.askV2)
	for _, service := range old {
		if found, ok := versions2[service.Name]; ok {
			path, etag := pathOfService(service), hash(service.Name, found.etag)
			documents[path] = remoteV3{service: service, url: urlV3(path, etag), converted: true, etag: etag}
		}
	}
	return documents
}

// listV2 returns the documents, those of more important groups first.
func (r *Remote) listV2(ctx context.Context, c clock.PassiveClock) []remoteV2 {
	services := r.available(ctx)
	found := r.find(ctx, c, services, func(s *remoteState) *finding { return &s.v2 }, r.askV2)
	priorities := map[string]int32{}
	for _, service := range services {
		priorities[service.Spec.Group] = max(priorities[service.Spec.Group], service.Spec.GroupPriorityMinimum)
	}
	slices.SortFunc(services, func(a, b *apiregistrationv1.APIService) int {
		first, second := priorities[a.Spec.Group], priorities[b.Spec.Group]
		if a.Spec.Group == b.Spec.Group {
			first, second = a.Spec.VersionPriority, b.Spec.VersionPriority
		}
		if first != second {
			return int(second) - int(first)
		}
		return strings.Compare(a.Name, b.Name)
	})
	var documents []remoteV2
	for _, service := range services {
		if answer, ok := found[service.Name]; ok {
			documents = append(documents, remoteV2{service: service, etag: answer.etag})
		}
	}
	return documents
}

// available are the API services that another server answers for.
func (r *Remote) available(ctx context.Context) []*apiregistrationv1.APIService {
	all, err := r.Services()
	if err != nil {
		klog.FromContext(ctx).Error(err, "OpenAPI documents of aggregated APIs are missing: the API services cannot be listed")
		return nil
	}
	var services []*apiregistrationv1.APIService
	for _, service := range all {
		if service.Spec.Service != nil && apiregistrationhelper.IsAPIServiceConditionTrue(service, apiregistrationv1.Available) {
			services = append(services, service)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string]*remoteState{}
	for _, service := range services {
		if state := r.known[service.Name]; state != nil {
			kept[service.Name] = state
		}
	}
	r.known = kept
	return services
}

// find returns what is known of services, after asking those that have not been
// asked for a while, all at once. The others are left out.
func (r *Remote) find(ctx context.Context, c clock.PassiveClock, services []*apiregistrationv1.APIService,
	part func(*remoteState) *finding, ask func(context.Context, *apiregistrationv1.APIService) (finding, error)) map[string]finding {
	now := c.Now()
	var stale []*apiregistrationv1.APIService
	states := map[string]*remoteState{}
	r.mu.Lock()
	for _, service := range services {
		version := string(service.UID) + " " + service.ResourceVersion
		if state := r.known[service.Name]; state == nil || state.version != version {
			r.known[service.Name] = &remoteState{version: version}
		}
		states[service.Name] = r.known[service.Name]
		if !now.Before(part(states[service.Name]).next) {
			stale = append(stale, service)
		}
	}
	r.mu.Unlock()

	var asking sync.WaitGroup
	for _, service := range stale {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
			defer cancel()
			answer, err := ask(ctx, service)
			r.mu.Lock()
			defer r.mu.Unlock()
			into := part(states[service.Name])
			if err != nil {
				klog.FromContext(ctx).Error(err, "An aggregated API does not tell its OpenAPI documents", "apiService", service.Name)
				into.next = c.Now().Add(remoteRetry)
				return
			}
			*into = answer
			into.ok, into.next = true, c.Now().Add(remoteFresh)
		})
	}
	asking.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]finding{}
	for name, state := range states {
		if answer := *part(state); answer.ok {
			found[name] = answer
		}
	}
	return found
}

// askV3 asks for the list of version 3 documents.
func (r *Remote) askV3(ctx context.Context, service *apiregistrationv1.APIService) (finding, error) {
	response, content, err := r.get(ctx, service, pathV3)
	if err != nil {
		return finding{}, err
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		return finding{}, nil
	case http.StatusOK:
	default:
		return finding{}, fmt.Errorf("%s answers %s", pathV3, response.Status)
	}
	var list handler3.OpenAPIV3Discovery
	if err := json.Unmarshal(content, &list); err != nil {
		return finding{}, fmt.Errorf("reading %s: %w", pathV3, err)
	}
	paths := map[string]string{}
	for path, document := range list.Paths {
		paths[path] = document.ServerRelativeURL
	}
	return finding{paths: paths}, nil
}

// askV2 asks for the version 2 document, to know which one it is.
func (r *Remote) askV2(ctx context.Context, service *apiregistrationv1.APIService) (finding, error) {
	response, content, err := r.get(ctx, service, pathV2)
	if err != nil {
		return finding{}, err
	}
	if response.StatusCode != http.StatusOK {
		return finding{}, fmt.Errorf("%s answers %s", pathV2, response.Status)
	}
	return finding{etag: hash(string(content))}, nil
}

func (r *Remote) downloadV2(ctx context.Context, service *apiregistrationv1.APIService) (*spec.Swagger, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	response, content, err := r.get(ctx, service, pathV2)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s of %s answers %s", pathV2, service.Name, response.Status)
	}
	published := &spec.Swagger{}
	if err := published.UnmarshalJSON(content); err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", pathV2, service.Name, err)
	}
	return published, nil
}

// get asks an aggregated API in the name of the aggregator.
func (r *Remote) get(ctx context.Context, service *apiregistrationv1.APIService, path string) (*http.Response, []byte, error) {
	address, transport, err := r.reach(service, &user.DefaultInfo{Name: aggregatorUser})
	if err != nil {
		return nil, nil, err
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return nil, nil, err
	}
	ask.Header.Set("Accept", mediaTypeJSON)
	response, err := transport.RoundTrip(ask)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, remoteLimit))
	return response, content, err
}

// forward lets an aggregated API answer a request, as its other requests are.
func (r *Remote) forward(w http.ResponseWriter, req *http.Request, service *apiregistrationv1.APIService) {
	who, ok := request.UserFrom(req.Context())
	if !ok {
		http.Error(w, "missing user", http.StatusInternalServerError)
		return
	}
	address, transport, err := r.reach(service, who)
	if err != nil {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(out *httputil.ProxyRequest) {
			out.Out.URL.Scheme, out.Out.URL.Host, out.Out.Host = "https", address, ""
		},
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}
	proxy.ServeHTTP(w, req)
}

// reach returns the address of an aggregated API, and a way there in somebody's
// name.
func (r *Remote) reach(service *apiregistrationv1.APIService, who user.Info) (string, http.RoundTripper, error) {
	reference := service.Spec.Service
	port := int32(443)
	if reference.Port != nil {
		port = *reference.Port
	}
	address, err := r.Resolve(reference.Namespace, reference.Name, port)
	if err != nil {
		return "", nil, fmt.Errorf("finding the server of %s: %w", service.Name, err)
	}
	cert, key := r.Certificate()
	// Client-go keeps one transport for each configuration.
	way, err := transport.New(remote.BuildTransportConfig(r.Dial, cert, key, service))
	if err != nil {
		return "", nil, fmt.Errorf("reaching %s: %w", service.Name, err)
	}
	return address.Host, transport.NewAuthProxyRoundTripper(who.GetName(), who.GetUID(), who.GetGroups(), who.GetExtra(), way), nil
}
