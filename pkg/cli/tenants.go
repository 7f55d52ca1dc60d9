package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	tenantResource   = "tenants"
	templateResource = "templates"
	// fieldOwner is who the host takes for the owner of the fields set here.
	fieldOwner = "sublet"
)

// tenantClient is a typed client for Tenants. It asks for no discovery, which
// would cost several requests before the first useful one.
type tenantClient struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

func newTenantClient(config *rest.Config) (*tenantClient, error) {
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &api.GroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &tenantClient{rest: client, params: runtime.NewParameterCodec(scheme)}, nil
}

func (c *tenantClient) Get(ctx context.Context, name string) (*api.Tenant, error) {
	tenant := &api.Tenant{}
	if err := c.rest.Get().Resource(tenantResource).Name(name).Do(ctx).Into(tenant); err != nil {
		return nil, err
	}
	return withKind(tenant), nil
}

func (c *tenantClient) List(ctx context.Context) (*api.TenantList, error) {
	list := &api.TenantList{}
	if err := c.rest.Get().Resource(tenantResource).Do(ctx).Into(list); err != nil {
		return nil, err
	}
	list.SetGroupVersionKind(api.GroupVersion.WithKind("TenantList"))
	for i := range list.Items {
		withKind(&list.Items[i])
	}
	return list, nil
}

func (c *tenantClient) Create(ctx context.Context, tenant *api.Tenant, options metav1.CreateOptions) (*api.Tenant, error) {
	created := &api.Tenant{}
	err := c.rest.Post().Resource(tenantResource).VersionedParams(&options, c.params).Body(tenant).Do(ctx).Into(created)
	if err != nil {
		return nil, err
	}
	return withKind(created), nil
}

// CreateTemplate makes a Template.
func (c *tenantClient) CreateTemplate(ctx context.Context, template *api.Template, options metav1.CreateOptions) error {
	return c.rest.Post().Resource(templateResource).VersionedParams(&options, c.params).Body(template).Do(ctx).Error()
}

func (c *tenantClient) GetTemplate(ctx context.Context, name string) (*api.Template, error) {
	template := &api.Template{}
	return template, c.rest.Get().Resource(templateResource).Name(name).Do(ctx).Into(template)
}

// Patch changes a Tenant by a JSON merge patch. A resource version in it makes the
// host refuse when somebody else was faster.
func (c *tenantClient) Patch(ctx context.Context, name string, patch any, options metav1.PatchOptions) (*api.Tenant, error) {
	content, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	patched := &api.Tenant{}
	err = c.rest.Patch(types.MergePatchType).Resource(tenantResource).Name(name).VersionedParams(&options, c.params).Body(content).Do(ctx).Into(patched)
	if err != nil {
		return nil, err
	}
	return withKind(patched), nil
}

func (c *tenantClient) Delete(ctx context.Context, name string, options metav1.DeleteOptions) error {
	return c.rest.Delete().Resource(tenantResource).Name(name).Body(&options).Do(ctx).Error()
}

// Watch follows one Tenant, starting with what it is now.
func (c *tenantClient) Watch(ctx context.Context, name string) (watch.Interface, error) {
	options := metav1.ListOptions{Watch: true, FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	return c.rest.Get().Resource(tenantResource).VersionedParams(&options, c.params).Watch(ctx)
}

// withKind says what an object is; decoding leaves it out.
func withKind(tenant *api.Tenant) *api.Tenant {
	tenant.SetGroupVersionKind(api.GroupVersion.WithKind("Tenant"))
	return tenant
}

// get finds a tenant by its name; if there is none it suggests near ones.
func (a *app) get(ctx context.Context, clients *hostClients, name string) (*api.Tenant, error) {
	tenant, err := clients.tenants.Get(ctx, name)
	switch {
	case apierrors.IsForbidden(err):
		return nil, hint(fmt.Errorf("you are not a member of a tenant %q (%s): %w", name, a.host.where(), err), "Is that its name? If so, ask an admin of the tenant to add you to its members.")
	case apierrors.IsNotFound(err) && !notInstalled(err):
		return nil, a.unknownTenant(ctx, clients, name)
	}
	return tenant, err
}

// unknownTenantError says that there is no tenant of that name.
type unknownTenantError struct{ name string }

func (e *unknownTenantError) Error() string {
	return fmt.Sprintf("there is no tenant %q", e.name)
}

func (a *app) unknownTenant(ctx context.Context, clients *hostClients, name string) error {
	err := &unknownTenantError{name: name}
	list, listErr := a.visible(ctx, clients)
	if listErr != nil {
		return hint(err, "You may not list tenants, so there is nothing to suggest.")
	}
	var names []string
	for _, tenant := range list.Items {
		names = append(names, tenant.Name)
	}
	if near := suggest(name, names); len(near) > 0 {
		return hint(err, "Did you mean %s? %q lists all.", quoteList(near, "or"), a.name+" list")
	}
	return hint(err, "%q lists all, %q makes one.", a.name+" list", a.name+" create "+name)
}

func newDialer(timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext
}

func contains(list []string, name string) bool { return slices.Contains(list, name) }

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
