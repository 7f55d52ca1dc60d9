package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// capsule is github.com/projectcapsule/capsule.
//
//	Tenant                        Folder below the root
//	  owners                        members
//	  additionalRoleBindings        members with scope Descendants, for admin, edit
//	                                and view; others a Template
//	  resourceQuotas                limits.quota of the Folder; with scope Namespace
//	                                of each Namespace tenant
//	  limitRanges                   limits.podDefaults, from defaults of containers
//	  networkPolicies               a Template, for those that the fence allows
//	  serviceOptions                limits.services
//	  ingressOptions                limits.ingressClasses and limits.hosts
//	  storageClasses, nodeSelector, limits of the same name
//	  priorityClasses,
//	  runtimeClasses
//	a Namespace with              Namespace tenant below the Folder
//	capsule.clastix.io/tenant
//	GlobalTenantResource,         Template, kept in force in the Folders that it
//	TenantResource                selects, from rawItems
func capsule() Peer {
	return Peer{
		Name: "capsule", Title: "Capsule",
		Groups: []string{capsuleGroup},
		Kinds: []Kind{
			{Group: capsuleGroup, Kind: "Tenant", Resource: "tenants", Versions: []string{"v1beta2", "v1beta1"}},
			{Group: capsuleGroup, Kind: "GlobalTenantResource", Resource: "globaltenantresources", Versions: []string{"v1beta2"}},
			{Group: capsuleGroup, Kind: "TenantResource", Resource: "tenantresources", Namespaced: true, Versions: []string{"v1beta2"}},
			{Kind: "Namespace", Resource: "namespaces", Versions: []string{"v1"}},
		},
		gaps:    capsuleGaps(),
		convert: convertCapsule,
	}
}

const (
	capsuleGroup = "capsule.clastix.io"
	// capsuleTenant stands, as a label, on a tenant's namespaces.
	capsuleTenant = capsuleGroup + "/tenant"
	// capsuleRoles and the index, or the kind and the name, of an owner make the
	// annotation of a v1beta1 Tenant with the owner's ClusterRoles.
	capsuleRoles = "clusterrolenames." + capsuleGroup + "/"
	// capsuleDeleter is a ClusterRole that lets owners delete namespaces, which an
	// admin of a Folder may.
	capsuleDeleter = "capsule-namespace-deleter"
)

func capsuleGaps() []gap {
	return []gap{
		{path: "spec.namespaceOptions.quota", advice: "the number of tenants below one has no bound; a limits.quota over all of them has"},
		{path: "spec.namespaceOptions.additionalMetadata", advice: capsuleMetadata},
		{path: "spec.namespaceOptions.additionalMetadataList", advice: capsuleMetadata},
		{path: "spec.namespaceOptions.managedMetadataOnly", advice: "members cannot change their namespace's labels and annotations at all"},
		{path: "spec.namespaceOptions.forbiddenLabels", advice: "members cannot change their namespace's labels at all"},
		{path: "spec.namespaceOptions.forbiddenAnnotations", advice: "members cannot change their namespace's annotations at all"},
		{path: "spec.serviceOptions.additionalMetadata", advice: capsulePolicy},
		{path: "spec.serviceOptions.forbiddenLabels", advice: capsulePolicy},
		{path: "spec.serviceOptions.forbiddenAnnotations", advice: capsulePolicy},
		{path: "spec.serviceOptions.externalIPs", advice: "tenants may use no externalIPs"},
		{path: "spec.podOptions", advice: capsulePolicy},
		{path: "spec.containerRegistries", advice: "no limit is about registries; " + capsulePolicy},
		{path: "spec.imagePullPolicies", advice: "no limit is about image pull policies; " + capsulePolicy},
		{path: "spec.ingressOptions.hostnameCollisionScope", usual: "Disabled", advice: "two tenants whose limits.hosts cover a name can both claim it; give each its own names"},
		{path: "spec.ingressOptions.allowWildcardHostnames", advice: "a wildcard host can be claimed where limits.hosts covers it"},
		{path: "spec.gatewayOptions", advice: "name the Gateways that HTTPRoutes may attach to in limits.gateways"},
		{path: "spec.deviceClasses", advice: "no limit is about device classes; a quota on devices is limits.quota"},
		{path: "spec.cordoned", advice: "a tenant cannot be frozen; take its members away, or give them the role view"},
		{path: "spec.preventDeletion", advice: "a tenant with others below it cannot be deleted while its deletionPolicy is Refuse, which is the default; one without can, by who manages its parent"},
		{path: "spec.owners.proxySettings", advice: "there is no proxy: members list what is theirs with sublet list"},
		{path: "spec.owners.labels", advice: "the manager's RoleBindings carry labels of its own only"},
		{path: "spec.owners.annotations", advice: "the manager's RoleBindings carry annotations of its own only"},
		{path: "spec.additionalRoleBindings.labels", advice: "the manager's RoleBindings carry labels of its own only"},
		{path: "spec.additionalRoleBindings.annotations", advice: "the manager's RoleBindings carry annotations of its own only"},
		{path: "spec.storageClasses.default", advice: capsuleDefault},
		{path: "spec.ingressOptions.allowedClasses.default", advice: capsuleDefault},
		{path: "spec.priorityClasses.default", advice: capsuleDefault},
		{path: "spec.runtimeClasses.default", advice: "limits.runtimeClass is given to every pod, and is not the same: set it if that is what you want"},
		{path: "spec.resyncPeriod", usual: "60s", advice: "a template with sync is put back as soon as somebody changes what it made"},
	}
}

const (
	capsuleMetadata = "a tenant does not label its namespaces; what stands on namespaces that there are stays"
	capsulePolicy   = "an admission policy of the host can hold it, by the label sublet.dev/tenant of namespaces"
	capsuleDefault  = "a limit has no default among what it allows; the host's default counts where there is one"
)

type capsuleAllowed struct {
	Exact []string `json:"allowed"`
	Regex string   `json:"allowedRegex"`
	metav1.LabelSelector
}

type capsuleTenantObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Owners []struct {
			Kind         string   `json:"kind"`
			Name         string   `json:"name"`
			ClusterRoles []string `json:"clusterRoles"`
		} `json:"owners"`
		AdditionalRoleBindings []struct {
			ClusterRoleName string           `json:"clusterRoleName"`
			Subjects        []rbacv1.Subject `json:"subjects"`
		} `json:"additionalRoleBindings"`
		ResourceQuotas struct {
			Scope string                     `json:"scope"`
			Items []corev1.ResourceQuotaSpec `json:"items"`
		} `json:"resourceQuotas"`
		LimitRanges struct {
			Items []corev1.LimitRangeSpec `json:"items"`
		} `json:"limitRanges"`
		NetworkPolicies struct {
			Items []networkingv1.NetworkPolicySpec `json:"items"`
		} `json:"networkPolicies"`
		ServiceOptions *struct {
			AllowedServices *struct {
				NodePort     *bool `json:"nodePort"`
				ExternalName *bool `json:"externalName"`
				LoadBalancer *bool `json:"loadBalancer"`
			} `json:"allowedServices"`
		} `json:"serviceOptions"`
		IngressOptions struct {
			AllowedClasses   *capsuleAllowed `json:"allowedClasses"`
			AllowedHostnames *capsuleAllowed `json:"allowedHostnames"`
		} `json:"ingressOptions"`
		StorageClasses  *capsuleAllowed   `json:"storageClasses"`
		PriorityClasses *capsuleAllowed   `json:"priorityClasses"`
		RuntimeClasses  *capsuleAllowed   `json:"runtimeClasses"`
		NodeSelector    map[string]string `json:"nodeSelector"`
		// Of these nothing has a counterpart, and what there is in them is told one
		// by one.
		NamespaceOptions *struct{} `json:"namespaceOptions"`
		PodOptions       *struct{} `json:"podOptions"`
	} `json:"spec"`
	Status struct {
		Namespaces []string `json:"namespaces"`
	} `json:"status"`
}

type capsuleResourceObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		TenantSelector  metav1.LabelSelector `json:"tenantSelector"`
		PruningOnDelete *bool                `json:"pruningOnDelete"`
		Resources       []struct {
			NamespaceSelector  *metav1.LabelSelector `json:"namespaceSelector"`
			NamespacedItems    []map[string]any      `json:"namespacedItems"`
			RawItems           []map[string]any      `json:"rawItems"`
			AdditionalMetadata *struct {
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"additionalMetadata"`
		} `json:"resources"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

// capsuleOwned is a Tenant of Capsule and what became of it.
type capsuleOwned struct {
	object *unstructured.Unstructured
	from   *capsuleTenantObject
	folder *api.Tenant
	// spaces are the tenants of its namespaces, by the namespace.
	spaces map[string]*api.Tenant
}

type capsuleImport struct {
	*Result
	tenants map[string]*capsuleOwned
	// namespaces are those that were read.
	namespaces map[string]*unstructured.Unstructured
}

func convertCapsule(objects []*unstructured.Unstructured, result *Result) error {
	c := &capsuleImport{Result: result, tenants: map[string]*capsuleOwned{}, namespaces: map[string]*unstructured.Unstructured{}}
	for _, object := range ofKind(objects, capsuleGroup, "Tenant") {
		if err := c.tenant(object); err != nil {
			return err
		}
	}
	for _, object := range ofKind(objects, "", "Namespace") {
		c.namespaces[object.GetName()] = object
		c.space(object)
	}
	for _, name := range slices.Sorted(maps.Keys(c.tenants)) {
		owned := c.tenants[name]
		c.unread(owned)
		c.quotas(owned)
	}
	for _, kind := range []string{"GlobalTenantResource", "TenantResource"} {
		for _, object := range ofKind(objects, capsuleGroup, kind) {
			if err := c.resource(object); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *capsuleImport) tenant(object *unstructured.Unstructured) error {
	from := &capsuleTenantObject{}
	folder := c.folder(object)
	of := tenantKey(folder)
	// Nobody has to be told of parts of a status.
	plain := object.DeepCopy()
	if status, ok := plain.Object["status"].(map[string]any); ok {
		plain.Object["status"] = map[string]any{"namespaces": status["namespaces"]}
	}
	if err := c.decode(plain, of, from, capsuleGaps()); err != nil {
		return err
	}
	owned := &capsuleOwned{object: object, from: from, folder: folder, spaces: map[string]*api.Tenant{}}
	c.tenants[object.GetName()] = owned
	c.owners(owned)
	if err := c.bindings(owned); err != nil {
		return err
	}
	c.podDefaults(owned)
	if err := c.networkPolicies(owned); err != nil {
		return err
	}
	c.services(owned)
	c.lists(owned)
	if selector := from.Spec.NodeSelector; len(selector) > 0 {
		limits(folder).NodeSelector = selector
	}
	for i, domain := range []string{capsuleGroup + "/", capsuleRoles} {
		for _, key := range slices.Sorted(maps.Keys(object.GetAnnotations())) {
			if strings.HasPrefix(key, domain) && (i == 0 || object.GroupVersionKind().Version != "v1beta1") {
				c.note(object, of, "the annotation %s (%s) has no counterpart", key, object.GetAnnotations()[key])
			}
		}
	}
	return nil
}

// owners become members of the Folder, and so may make tenants in it.
func (c *capsuleImport) owners(owned *capsuleOwned) {
	for i, owner := range owned.from.Spec.Owners {
		field := fmt.Sprintf("spec.owners[%d]", i)
		subjects := []rbacv1.Subject{{Kind: owner.Kind, Name: owner.Name}}
		roles := owner.ClusterRoles
		if len(roles) == 0 {
			roles = annotatedRoles(owned.object, owner.Kind, owner.Name, i)
		}
		if len(roles) == 0 {
			roles = []string{"admin", capsuleDeleter} // Capsule's default
		}
		member := false
		for _, name := range roles {
			role, known := roleOf(name)
			switch {
			case known:
				member = true
				c.members(owned.folder, binding{about: owned.object, field: field, subjects: subjects, role: role})
			case name != capsuleDeleter:
				c.note(owned.object, tenantKey(owned.folder), "%s: the ClusterRole %q of %s is none of admin, edit and view, and is not given", field, name, subjectsText(subjects))
			}
		}
		if !member {
			c.note(owned.object, tenantKey(owned.folder), "%s: %s becomes no member; add it to spec.members with the role that fits", field, subjectsText(subjects))
		}
	}
}

// annotatedRoles are the ClusterRoles of an owner of a v1beta1 Tenant.
func annotatedRoles(object *unstructured.Unstructured, kind, name string, index int) []string {
	if object.GroupVersionKind().Version != "v1beta1" {
		return nil
	}
	annotations := object.GetAnnotations()
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		of, found := strings.CutPrefix(key, capsuleRoles)
		if !found {
			continue
		}
		of = strings.ReplaceAll(of, "__AT__", "@")
		if of == strconv.Itoa(index) || of == strings.ToLower(kind)+"."+strings.ToLower(name) {
			return strings.Split(annotations[key], ",")
		}
	}
	return nil
}

// bindings of the namespaces, which give no right on the Tenant itself.
func (c *capsuleImport) bindings(owned *capsuleOwned) error {
	var template *api.Template
	for i, b := range owned.from.Spec.AdditionalRoleBindings {
		field := fmt.Sprintf("spec.additionalRoleBindings[%d]", i)
		if role, known := roleOf(b.ClusterRoleName); known {
			c.members(owned.folder, binding{
				about: owned.object, field: field + ".subjects", subjects: b.Subjects, role: role, scope: api.ScopeDescendants,
			})
			continue
		}
		if template == nil {
			template = c.template(owned.object, owned.folder.Name+"-role-bindings", fmt.Sprintf("Additional role bindings of the Capsule tenant %s", owned.object.GetName()))
		}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&rbacv1.RoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("capsule-%d-%s", i, readable(b.ClusterRoleName))},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.ClusterRoleName},
			Subjects:   b.Subjects,
		})
		if err != nil {
			return fmt.Errorf("%s: %s: %w", describe(owned.object), field, err)
		}
		if err := c.addManifest(template, manifest{about: owned.object, field: field, content: object, text: literal}); err != nil {
			return err
		}
		c.note(owned.object, templateKey(template), "%s: the ClusterRole %q is no role of members: the binding (of %s) is in a template, which is applied with the rights of a tenant's admin and so can give no more than these",
			field, b.ClusterRoleName, subjectsText(b.Subjects))
	}
	if template != nil {
		c.applyTemplate(owned.object, owned.folder, api.TemplateRef{Name: template.Name, Sync: true})
	}
	return nil
}

// podDefaults come from the defaults of containers in LimitRanges. There is no
// other bound on single pods.
func (c *capsuleImport) podDefaults(owned *capsuleOwned) {
	of := tenantKey(owned.folder)
	for i, item := range owned.from.Spec.LimitRanges.Items {
		for j, limit := range item.Limits {
			field := fmt.Sprintf("spec.limitRanges.items[%d].limits[%d]", i, j)
			bounds := len(limit.Min)+len(limit.Max)+len(limit.MaxLimitRequestRatio) > 0
			if limit.Type == corev1.LimitTypeContainer && len(limit.Default)+len(limit.DefaultRequest) > 0 {
				c.containerDefaults(owned, field, limit)
			} else if !bounds {
				c.note(owned.object, of, "%s (type %s) has no counterpart", field, limit.Type)
			}
			if bounds {
				c.note(owned.object, of, "%s (type %s): min, max and maxLimitRequestRatio have no counterpart: bound the sum by limits.quota; %s", field, limit.Type, capsulePolicy)
			}
		}
	}
}

func (c *capsuleImport) containerDefaults(owned *capsuleOwned, field string, limit corev1.LimitRangeItem) {
	of := tenantKey(owned.folder)
	l := limits(owned.folder)
	if l.PodDefaults != nil {
		c.note(owned.object, of, "%s: there are defaults already, from another limit: this further one is left out", field)
		return
	}
	probe := &api.Tenant{Spec: api.TenantSpec{Limits: &api.Limits{PodDefaults: &api.ContainerDefaults{Requests: limit.DefaultRequest, Limits: limit.Default}}}}
	if errs := tenancy.ValidateLimits(probe); len(errs) > 0 {
		c.note(owned.object, of, "%s is left out: %s", field, errs[0].Detail)
		return
	}
	l.PodDefaults = probe.Spec.Limits.PodDefaults
}

func (c *capsuleImport) networkPolicies(owned *capsuleOwned) error {
	items := owned.from.Spec.NetworkPolicies.Items
	if len(items) == 0 {
		return nil
	}
	template := c.template(owned.object, owned.folder.Name+"-network", fmt.Sprintf("NetworkPolicies of the Capsule tenant %s", owned.object.GetName()))
	for i, item := range items {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&networkingv1.NetworkPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("capsule-%s-%d", readable(owned.object.GetName()), i)},
			Spec:       item,
		})
		if err != nil {
			return fmt.Errorf("%s: spec.networkPolicies.items[%d]: %w", describe(owned.object), i, err)
		}
		field := fmt.Sprintf("spec.networkPolicies.items[%d]", i)
		if err := c.addManifest(template, manifest{about: owned.object, field: field, content: object, text: literal}); err != nil {
			return err
		}
	}
	if len(template.Spec.Manifests) == 0 {
		c.discard(template)
		for i := range c.Notes {
			if c.Notes[i].Of == templateKey(template) {
				c.Notes[i].Of = tenantKey(owned.folder)
			}
		}
		return nil
	}
	c.applyTemplate(owned.object, owned.folder, api.TemplateRef{Name: template.Name, Sync: true})
	return nil
}

func (c *capsuleImport) services(owned *capsuleOwned) {
	options := owned.from.Spec.ServiceOptions
	if options == nil || options.AllowedServices == nil {
		c.note(owned.object, tenantKey(owned.folder), "it says nothing about types of Services, and so allowed NodePort, LoadBalancer and ExternalName, too: here ClusterIP alone is the default; name others in limits.services")
		return
	}
	allowed := []corev1.ServiceType{corev1.ServiceTypeClusterIP}
	for _, service := range []struct {
		name corev1.ServiceType
		said *bool
	}{
		{corev1.ServiceTypeNodePort, options.AllowedServices.NodePort},
		{corev1.ServiceTypeExternalName, options.AllowedServices.ExternalName},
		{corev1.ServiceTypeLoadBalancer, options.AllowedServices.LoadBalancer},
	} {
		if service.said == nil || *service.said {
			allowed = append(allowed, service.name)
		}
	}
	limits(owned.folder).Services = allowed
}

// lists are what may be used, by name.
func (c *capsuleImport) lists(owned *capsuleOwned) {
	spec := owned.from.Spec
	if names := c.allowed(owned, "spec.storageClasses", spec.StorageClasses, true); names != nil {
		limits(owned.folder).StorageClasses = names
	}
	if names := c.allowed(owned, "spec.ingressOptions.allowedClasses", spec.IngressOptions.AllowedClasses, true); names != nil {
		limits(owned.folder).IngressClasses = names
	}
	if names := c.allowed(owned, "spec.priorityClasses", spec.PriorityClasses, false); names != nil {
		limits(owned.folder).PriorityClasses = names
	}
	if names := c.allowed(owned, "spec.runtimeClasses", spec.RuntimeClasses, false); names != nil {
		limits(owned.folder).RuntimeClasses = names
	}
	c.hosts(owned)
}

// allowed are the names that a list of Capsule allows. What it allows by an
// expression or by labels is told. everything says that an empty list here would
// allow all, so that one that comes out empty must allow nothing in words.
func (c *capsuleImport) allowed(owned *capsuleOwned, field string, list *capsuleAllowed, everything bool) []string {
	if list == nil {
		return nil
	}
	of := tenantKey(owned.folder)
	var kept []string
	for i, name := range list.Exact {
		switch {
		case len(validation.IsDNS1123Subdomain(name)) > 0:
			c.note(owned.object, of, "%s.allowed[%d] (%q) cannot be the name of anything, and is left out", field, i, name)
		case !slices.Contains(kept, name):
			kept = append(kept, name)
		}
	}
	if list.Regex != "" {
		c.note(owned.object, of, "%s.allowedRegex (%s) has no counterpart: name in the limit what it stands for", field, list.Regex)
	}
	if len(list.MatchLabels)+len(list.MatchExpressions) > 0 {
		c.note(owned.object, of, "%s allows by labels (%s), which has no counterpart: name in the limit what they select", field, metav1.FormatLabelSelector(&list.LabelSelector))
	}
	if len(kept) == 0 && everything {
		c.note(owned.object, of, "%s names nothing that could be carried over: the limit allows nothing (%s) until you name what it should", field, api.Nothing)
		return []string{api.Nothing}
	}
	return kept
}

// wildcardHosts is an expression that stands for all names below one.
var wildcardHosts = regexp.MustCompile(`^\^?\.[*+](\\\.[a-z0-9-]+)+\$$`)

func (c *capsuleImport) hosts(owned *capsuleOwned) {
	of := tenantKey(owned.folder)
	list := owned.from.Spec.IngressOptions.AllowedHostnames
	if list == nil {
		c.note(owned.object, of, "it says nothing about host names, and so allowed all: here none is the default; name those of the tenant in limits.hosts")
		return
	}
	var hosts []string
	add := func(field, host string) {
		probe := &api.Tenant{Spec: api.TenantSpec{Limits: &api.Limits{Hosts: []string{host}}}}
		if errs := tenancy.ValidateLimits(probe); len(errs) > 0 {
			c.note(owned.object, of, "%s (%q) is left out: %s", field, host, errs[0].Detail)
		} else if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	for i, host := range list.Exact {
		add(fmt.Sprintf("spec.ingressOptions.allowedHostnames.allowed[%d]", i), host)
	}
	switch {
	case list.Regex == "":
	case wildcardHosts.MatchString(list.Regex):
		name := strings.TrimSuffix(strings.TrimPrefix(list.Regex, "^")[2:], "$")
		add("spec.ingressOptions.allowedHostnames.allowedRegex", "*"+strings.ReplaceAll(name, `\.`, "."))
	default:
		c.note(owned.object, of, "spec.ingressOptions.allowedHostnames.allowedRegex (%s) has no counterpart: write the names into limits.hosts, *.example.com for all below one", list.Regex)
	}
	if hosts != nil {
		limits(owned.folder).Hosts = hosts
	}
}

// space makes a tenant of a namespace that is one of Capsule's.
func (c *capsuleImport) space(object *unstructured.Unstructured) {
	name := object.GetLabels()[capsuleTenant]
	for _, owner := range object.GetOwnerReferences() {
		if group, _, _ := strings.Cut(owner.APIVersion, "/"); group == capsuleGroup && owner.Kind == "Tenant" && name == "" {
			name = owner.Name
		}
	}
	if name == "" {
		return
	}
	owned := c.tenants[name]
	if owned == nil {
		if tenant := c.namespace(object, object.GetName(), ""); tenant != nil {
			c.note(object, tenantKey(tenant), "its tenant %q was not read: it is directly below the root, without members; read the tenant too, or move it where it belongs", name)
			c.podSecurity(object, tenant)
		}
		return
	}
	if tenant := c.namespace(object, object.GetName(), owned.folder.Name); tenant != nil {
		owned.spaces[object.GetName()] = tenant
		c.podSecurity(object, tenant)
	}
}

// unread makes tenants of the namespaces that a status tells of alone.
func (c *capsuleImport) unread(owned *capsuleOwned) {
	for _, name := range owned.from.Status.Namespaces {
		if owned.spaces[name] != nil || c.namespaces[name] != nil {
			continue
		}
		if tenant := c.namespace(owned.object, name, owned.folder.Name); tenant != nil {
			owned.spaces[name] = tenant
		}
	}
}

func (c *capsuleImport) quotas(owned *capsuleOwned) {
	quotas := owned.from.Spec.ResourceQuotas
	for i, item := range quotas.Items {
		field := fmt.Sprintf("spec.resourceQuotas.items[%d]", i)
		if quotas.Scope != "Namespace" {
			c.quota(owned.object, field, owned.folder, item)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(owned.spaces)) {
			c.quota(owned.object, field, owned.spaces[name], item)
		}
	}
	if quotas.Scope == "Namespace" && len(quotas.Items) > 0 {
		c.note(owned.object, tenantKey(owned.folder), "spec.resourceQuotas bounds each namespace by itself: it became limits.quota of each tenant that there is; whoever makes another below the Folder sets its limits")
	}
}

// capsuleVariable is what Capsule fills into raw items.
var capsuleVariable = regexp.MustCompile(`\{\{\s*(tenant\.name|namespace)\s*\}\}`)

func capsuleText(text string) string {
	return capsuleVariable.ReplaceAllStringFunc(literal(text), func(found string) string {
		if strings.Contains(found, "tenant.name") {
			return "${tenant.parent}"
		}
		return "${tenant.namespace}"
	})
}

// resource makes templates of what Capsule copies into namespaces: one for each
// choice of namespaces.
func (c *capsuleImport) resource(object *unstructured.Unstructured) error {
	from := &capsuleResourceObject{}
	if err := c.decode(object, "", from, capsuleGaps()); err != nil {
		return err
	}
	owned, err := c.selected(object, from)
	if err != nil {
		return err
	}
	if pruning := from.Spec.PruningOnDelete; pruning != nil && !*pruning {
		c.note(object, "", "spec.pruningOnDelete is false: a template with sync takes away what it made when a tenant no longer refers to it")
	}
	wanted := object.GetName()
	if object.GetNamespace() != "" {
		wanted = object.GetNamespace() + "-" + wanted
	}
	for i, resource := range from.Spec.Resources {
		field := fmt.Sprintf("spec.resources[%d]", i)
		name := wanted
		if len(from.Spec.Resources) > 1 {
			name = fmt.Sprintf("%s-%d", wanted, i)
		}
		for j, item := range resource.NamespacedItems {
			c.note(object, "", "%s.namespacedItems[%d] (kind %v in namespace %v) has no counterpart: a template has its objects in itself; make one of what this selects", field, j, item["kind"], item["namespace"])
		}
		if len(resource.RawItems) == 0 {
			continue
		}
		template := c.template(object, name, fmt.Sprintf("What the %s %s of Capsule had copied", object.GetKind(), wanted))
		for j, item := range resource.RawItems {
			content := runtime.DeepCopyJSON(item)
			if more := resource.AdditionalMetadata; more != nil {
				if err := addMetadata(content, more.Labels, more.Annotations); err != nil {
					return fmt.Errorf("%s: %s.rawItems[%d]: %w", describe(object), field, j, err)
				}
			}
			if err := c.addManifest(template, manifest{about: object, field: fmt.Sprintf("%s.rawItems[%d]", field, j), content: content, text: capsuleText}); err != nil {
				return err
			}
		}
		if len(template.Spec.Manifests) == 0 {
			c.discard(template)
			continue
		}
		if err := c.apply(object, field, template, owned, resource.NamespaceSelector); err != nil {
			return err
		}
	}
	return nil
}

func addMetadata(content map[string]any, labels, annotations map[string]string) error {
	for field, added := range map[string]map[string]string{"labels": labels, "annotations": annotations} {
		for key, value := range added {
			if err := unstructured.SetNestedField(content, value, "metadata", field, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// selected are the tenants that an object copies into.
func (c *capsuleImport) selected(object *unstructured.Unstructured, from *capsuleResourceObject) ([]*capsuleOwned, error) {
	var selected []*capsuleOwned
	names := slices.Sorted(maps.Keys(c.tenants))
	if object.GetKind() == "TenantResource" {
		for _, name := range names {
			if c.tenants[name].spaces[object.GetNamespace()] != nil {
				selected = append(selected, c.tenants[name])
			}
		}
		if selected == nil {
			c.note(object, "", "its namespace is in no tenant that was read: its template applies to nothing")
		}
		return selected, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&from.Spec.TenantSelector)
	if err != nil {
		return nil, fmt.Errorf("%s: spec.tenantSelector: %w", describe(object), err)
	}
	for _, name := range names {
		if selector.Matches(labels.Set(c.tenants[name].object.GetLabels())) {
			selected = append(selected, c.tenants[name])
		}
	}
	if selected == nil {
		c.note(object, "", "spec.tenantSelector selects no tenant that was read: its template applies to nothing")
	} else if !selector.Empty() {
		c.note(object, "", "spec.tenantSelector became references in the tenants that it selects now (%d): one that comes later has to refer to the template itself", len(selected))
	}
	return selected, nil
}

// apply refers the tenants to a template: the Folders, or where there is a choice
// of namespaces those that it selects now.
func (c *capsuleImport) apply(object *unstructured.Unstructured, field string, template *api.Template, owned []*capsuleOwned, only *metav1.LabelSelector) error {
	ref := api.TemplateRef{Name: template.Name, Sync: true}
	if only == nil {
		for _, o := range owned {
			c.applyTemplate(object, o.folder, ref)
		}
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(only)
	if err != nil {
		return fmt.Errorf("%s: %s.namespaceSelector: %w", describe(object), field, err)
	}
	for _, o := range owned {
		for _, name := range slices.Sorted(maps.Keys(o.spaces)) {
			if namespace := c.namespaces[name]; namespace != nil && selector.Matches(labels.Set(namespace.GetLabels())) {
				c.applyTemplate(object, o.spaces[name], ref)
			}
		}
	}
	c.note(object, templateKey(template), "%s.namespaceSelector (%s) became references in the tenants of the namespaces that it selects now: one that comes later has to refer to the template itself", field, metav1.FormatLabelSelector(only))
	return nil
}
