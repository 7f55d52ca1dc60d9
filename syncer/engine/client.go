package engine

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// client talks to one side. It holds one REST client for each group and
// version, over one connection; the server's own fairness is the only limit.
type client struct {
	config *rest.Config
	http   *http.Client
	rests  map[schema.GroupVersion]rest.Interface
}

func newClient(config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	if config.UserAgent == "" {
		config.UserAgent = "sublet-syncer"
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &client{config: config, http: httpClient, rests: map[schema.GroupVersion]rest.Interface{}}, nil
}

// rest returns the client of a group and version, which must be one of
// Kubernetes' own. It is called while the engine is put together only.
func (c *client) rest(gv schema.GroupVersion) (rest.Interface, error) {
	if have, ok := c.rests[gv]; ok {
		return have, nil
	}
	if !scheme.Scheme.IsVersionRegistered(gv) {
		return nil, fmt.Errorf("group version %q is not one of Kubernetes' own", gv)
	}
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	made, err := rest.RESTClientForConfigAndClient(config, c.http)
	if err != nil {
		return nil, err
	}
	c.rests[gv] = made
	return made, nil
}

// resource is one resource on one side.
type resource struct {
	client *client
	rest   rest.Interface
	// dynamic is there instead of rest for custom resources.
	dynamic    dynamic.NamespaceableResourceInterface
	gvk        schema.GroupVersionKind
	plural     string
	namespaced bool
	new        func() translate.Object
	newList    func() translate.ObjectList
}

func (c *client) resource(gvk schema.GroupVersionKind, plural string, namespaced bool) (*resource, error) {
	restClient, err := c.rest(gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	r := &resource{client: c, rest: restClient, gvk: gvk, plural: plural, namespaced: namespaced}
	for _, k := range []schema.GroupVersionKind{gvk, gvk.GroupVersion().WithKind(gvk.Kind + "List")} {
		if !scheme.Scheme.Recognizes(k) {
			return nil, fmt.Errorf("kind %q is not one of Kubernetes' own", k)
		}
	}
	r.new = func() translate.Object {
		object, _ := scheme.Scheme.New(gvk)
		return object.(translate.Object)
	}
	r.newList = func() translate.ObjectList {
		object, _ := scheme.Scheme.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		return object.(translate.ObjectList)
	}
	return r, nil
}

func (r *resource) get(ctx context.Context, namespace, name string) (translate.Object, error) {
	if r.dynamic != nil {
		return r.getUntyped(ctx, namespace, name)
	}
	out := r.new()
	err := r.rest.Get().NamespaceIfScoped(namespace, r.namespaced).Resource(r.plural).Name(name).Do(ctx).Into(out)
	return out, err
}

func (r *resource) create(ctx context.Context, object translate.Object) (translate.Object, error) {
	if r.dynamic != nil {
		return r.createUntyped(ctx, object)
	}
	out := r.new()
	err := r.rest.Post().NamespaceIfScoped(object.GetNamespace(), r.namespaced).Resource(r.plural).Body(object).Do(ctx).Into(out)
	return out, err
}

// update writes an object, or one of its subresources if that is not empty.
func (r *resource) update(ctx context.Context, object translate.Object, subresource string) (translate.Object, error) {
	if r.dynamic != nil {
		return r.updateUntyped(ctx, object, subresource)
	}
	out := r.new()
	request := r.rest.Put().NamespaceIfScoped(object.GetNamespace(), r.namespaced).Resource(r.plural).Name(object.GetName())
	if subresource != "" {
		request = request.SubResource(subresource)
	}
	err := request.Body(object).Do(ctx).Into(out)
	return out, err
}

// delete deletes just this object, not another one of the same name.
func (r *resource) delete(ctx context.Context, object translate.Object, grace *int64) error {
	uid := object.GetUID()
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{
		Preconditions:      &metav1.Preconditions{UID: &uid},
		GracePeriodSeconds: grace,
		PropagationPolicy:  &background,
	}
	if r.dynamic != nil {
		return r.untyped(object.GetNamespace()).Delete(ctx, object.GetName(), options)
	}
	return r.rest.Delete().NamespaceIfScoped(object.GetNamespace(), r.namespaced).Resource(r.plural).Name(object.GetName()).
		Body(&options).Do(ctx).Error()
}

func (r *resource) bind(ctx context.Context, object translate.Object, binding *corev1.Binding) error {
	return r.rest.Post().NamespaceIfScoped(object.GetNamespace(), r.namespaced).Resource(r.plural).Name(object.GetName()).
		SubResource("binding").Body(binding).Do(ctx).Error()
}

// token issues a service account token; r is the resource serviceaccounts.
func (r *resource) token(ctx context.Context, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	err := r.rest.Post().NamespaceIfScoped(namespace, true).Resource(r.plural).Name(serviceAccount).
		SubResource("token").Body(request).Do(ctx).Into(out)
	return out, err
}

func (r *resource) list(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
	if r.dynamic != nil {
		return r.listUntyped(ctx, namespace, o)
	}
	out := r.newList()
	err := r.rest.Get().NamespaceIfScoped(namespace, r.namespaced && namespace != "").Resource(r.plural).
		VersionedParams(&o, scheme.ParameterCodec).Do(ctx).Into(out)
	return out, err
}

func (r *resource) watch(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	if r.dynamic != nil {
		return r.watchUntyped(ctx, namespace, o)
	}
	o.Watch = true
	return r.rest.Get().NamespaceIfScoped(namespace, r.namespaced && namespace != "").Resource(r.plural).
		VersionedParams(&o, scheme.ParameterCodec).Watch(ctx)
}

// metadata lists and watches without what the objects hold.
func (r *resource) metadata() (metadata.Getter, error) {
	config := rest.CopyConfig(r.client.config)
	config.NegotiatedSerializer = nil
	c, err := metadata.NewForConfigAndClient(metadata.ConfigFor(config), r.client.http)
	if err != nil {
		return nil, err
	}
	return c.Resource(r.gvk.GroupVersion().WithResource(r.plural)), nil
}
