package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/strvals"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// kiosk is github.com/loft-sh/kiosk, its API as of its last release.
//
//	Account                       Folder below the root
//	  subjects, space.clusterRole   members, with the role that the ClusterRole is
//	  space.templateInstances       templates, for all below
//	Space, or a Namespace with    Namespace tenant below its Account's Folder
//	  kiosk.sh/account
//	AccountQuota                  limits.quota of the Account's Folder
//	Template                      Template; of its parameters those with names, its
//	                              chart where it is one version of a repository's
//	TemplateInstance              a reference of its Space's tenant
func kiosk() Peer {
	return Peer{
		Name: "kiosk", Title: "kiosk",
		Groups: []string{kioskConfig, kioskTenancy},
		Kinds: []Kind{
			{Group: kioskConfig, Kind: "Account", Resource: "accounts", Versions: []string{"v1alpha1"}},
			{Group: kioskConfig, Kind: "AccountQuota", Resource: "accountquotas", Versions: []string{"v1alpha1"}},
			{Group: kioskConfig, Kind: "Template", Resource: "templates", Versions: []string{"v1alpha1"}},
			{Group: kioskConfig, Kind: "TemplateInstance", Resource: "templateinstances", Namespaced: true, Versions: []string{"v1alpha1"}},
			// What kiosk's own API server makes of accounts and namespaces.
			{Group: kioskTenancy, Kind: "Account", Resource: "accounts", Versions: []string{"v1alpha1"}},
			{Group: kioskTenancy, Kind: "Space", Resource: "spaces", Versions: []string{"v1alpha1"}},
			{Kind: "Namespace", Resource: "namespaces", Versions: []string{"v1"}},
		},
		gaps:    kioskGaps(),
		convert: convertKiosk,
	}
}

const (
	kioskConfig  = "config.kiosk.sh"
	kioskTenancy = "tenancy.kiosk.sh"
	// kioskAccount stands on a namespace that is a Space: as an annotation, and as
	// a label.
	kioskAccount = "kiosk.sh/account"
)

func kioskGaps() []gap {
	return []gap{
		{path: "spec.space.limit", advice: "the number of tenants below one has no bound; a limits.quota over all of them has"},
		{path: "spec.space.spaceTemplate", advice: "a tenant's namespace gets no labels or annotations from a Folder; those on namespaces that there are stay"},
		{path: "spec.space.templateInstances.metadata", advice: "a reference to a template has no metadata"},
		{path: "spec.finalizers", usual: []any{"kubernetes"}, advice: "finalizers stay on the namespace"},
		{path: "resources.helm.chart.repository.username", advice: kioskCredentials},
		{path: "resources.helm.chart.repository.password", advice: kioskCredentials},
	}
}

const kioskCredentials = "credentials of a repository are not carried over"

type kioskAccountObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Subjects []rbacv1.Subject `json:"subjects"`
		Space    struct {
			ClusterRole       *string `json:"clusterRole"`
			TemplateInstances []struct {
				Spec kioskInstance `json:"spec"`
			} `json:"templateInstances"`
		} `json:"space"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type kioskInstance struct {
	Template   string `json:"template"`
	Sync       bool   `json:"sync"`
	Parameters []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"parameters"`
}

type kioskSpace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Account string `json:"account"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type kioskQuota struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Account string                   `json:"account"`
		Quota   corev1.ResourceQuotaSpec `json:"quota"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type kioskTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Resources         struct {
		Manifests []map[string]any `json:"manifests"`
		Helm      *kioskHelm       `json:"helm"`
	} `json:"resources"`
	Parameters []struct {
		Name       string `json:"name"`
		Value      string `json:"value"`
		Required   bool   `json:"required"`
		Validation string `json:"validation"`
	} `json:"parameters"`
}

type kioskHelm struct {
	ReleaseName string `json:"releaseName"`
	SetValues   []struct {
		Name        string `json:"name"`
		Value       string `json:"value"`
		ForceString bool   `json:"forceString"`
	} `json:"setValues"`
	Values string `json:"values"`
	Chart  struct {
		Repository *struct {
			Name    string `json:"name"`
			Version string `json:"version"`
			RepoURL string `json:"repoUrl"`
		} `json:"repository"`
	} `json:"chart"`
}

type kioskTemplateInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              kioskInstance   `json:"spec"`
	Status            json.RawMessage `json:"status"`
}

// kioskImport is what is known while kiosk's objects are gone through.
type kioskImport struct {
	*Result
	// By the names in kiosk.
	folders   map[string]*api.Tenant
	spaces    map[string]*api.Tenant
	templates map[string]*api.Template
}

func convertKiosk(objects []*unstructured.Unstructured, result *Result) error {
	k := &kioskImport{Result: result, folders: map[string]*api.Tenant{}, spaces: map[string]*api.Tenant{}, templates: map[string]*api.Template{}}
	for _, object := range ofKind(objects, kioskConfig, "Template") {
		if err := k.template(object); err != nil {
			return err
		}
	}
	for _, group := range []string{kioskConfig, kioskTenancy} {
		for _, object := range ofKind(objects, group, "Account") {
			if k.folders[object.GetName()] != nil {
				continue // the same account, as kiosk's own API server shows it
			}
			if err := k.account(object); err != nil {
				return err
			}
		}
	}
	for _, object := range ofKind(objects, kioskTenancy, "Space") {
		space := &kioskSpace{}
		if err := k.decode(object, "", space, kioskGaps()); err != nil {
			return err
		}
		k.space(object, space.Spec.Account)
	}
	for _, object := range ofKind(objects, "", "Namespace") {
		k.namespaceOfKiosk(object)
	}
	for _, object := range ofKind(objects, kioskConfig, "AccountQuota") {
		if err := k.accountQuota(object); err != nil {
			return err
		}
	}
	for _, object := range ofKind(objects, kioskConfig, "TemplateInstance") {
		if err := k.instance(object); err != nil {
			return err
		}
	}
	return nil
}

func (k *kioskImport) account(object *unstructured.Unstructured) error {
	account := &kioskAccountObject{}
	folder := k.folder(object)
	if err := k.decode(object, tenantKey(folder), account, kioskGaps()); err != nil {
		return err
	}
	k.folders[object.GetName()] = folder
	clusterRole := "admin" // what kiosk binds when nothing is said
	if account.Spec.Space.ClusterRole != nil {
		clusterRole = *account.Spec.Space.ClusterRole
	}
	role, known := roleOf(clusterRole)
	if clusterRole == "kiosk-space-admin" { // admin, and the right to delete the space
		role, known = api.RoleAdmin, true
	}
	if known {
		k.members(folder, binding{about: object, field: "spec.subjects", subjects: account.Spec.Subjects, role: role})
	} else if len(account.Spec.Subjects) > 0 {
		k.note(object, tenantKey(folder), "spec.subjects (%s) become no members: the ClusterRole %q of their spaces is none of admin, edit and view; add them to spec.members with the role that fits",
			subjectsText(account.Spec.Subjects), clusterRole)
	}
	for i, instance := range account.Spec.Space.TemplateInstances {
		k.refer(object, fmt.Sprintf("spec.space.templateInstances[%d]", i), folder, instance.Spec)
	}
	return nil
}

// namespaceOfKiosk takes a namespace for the Space that it is.
func (k *kioskImport) namespaceOfKiosk(object *unstructured.Unstructured) {
	account, marked := object.GetAnnotations()[kioskAccount]
	if account == "" {
		var labelled bool
		account, labelled = object.GetLabels()[kioskAccount]
		marked = marked || labelled
	}
	tenant := k.spaces[object.GetName()]
	if tenant == nil && marked {
		tenant = k.space(object, account)
	}
	if tenant != nil {
		k.podSecurity(object, tenant)
	}
}

func (k *kioskImport) space(object *unstructured.Unstructured, account string) *api.Tenant {
	parent := ""
	folder := k.folders[account]
	if folder != nil {
		parent = folder.Name
	}
	tenant := k.namespace(object, object.GetName(), parent)
	if tenant == nil {
		return nil
	}
	switch {
	case folder != nil:
	case account == "":
		k.note(object, tenantKey(tenant), "it belongs to no account: the tenant is directly below the root, without members; move it where it belongs")
	default:
		k.note(object, tenantKey(tenant), "its account %q was not read: the tenant is directly below the root, without members; read the account too, or move the tenant where it belongs", account)
	}
	k.spaces[object.GetName()] = tenant
	return tenant
}

func (k *kioskImport) accountQuota(object *unstructured.Unstructured) error {
	quota := &kioskQuota{}
	if err := k.decode(object, "", quota, kioskGaps()); err != nil {
		return err
	}
	folder := k.folders[quota.Spec.Account]
	if folder == nil {
		k.note(object, "", "its account %q was not read: it bounds nothing; read the account too, or write limits.quota where it belongs", quota.Spec.Account)
		return nil
	}
	k.quota(object, "spec.quota", folder, quota.Spec.Quota)
	return nil
}

func (k *kioskImport) instance(object *unstructured.Unstructured) error {
	instance := &kioskTemplateInstance{}
	if err := k.decode(object, "", instance, kioskGaps()); err != nil {
		return err
	}
	tenant := k.spaces[object.GetNamespace()]
	if tenant == nil {
		k.note(object, "", "its namespace is no Space that was read: the template %q is applied to nothing for it", instance.Spec.Template)
		return nil
	}
	// What the account applies to all its spaces is there as an instance, too.
	if template := k.templates[instance.Spec.Template]; template != nil {
		for _, ref := range k.above(tenant) {
			switch {
			case ref.Name != template.Name:
			case sameReference(ref, instance.Spec):
				return nil
			default:
				k.note(object, tenantKey(tenant), "the Folder above applies the template %q, with other parameters or another sync, and what is said above counts: copy the template under another name for this one", template.Name)
				return nil
			}
		}
	}
	k.refer(object, "spec", tenant, instance.Spec)
	return nil
}

// above are the templates that the Folder of a Space's tenant applies.
func (k *kioskImport) above(tenant *api.Tenant) []api.TemplateRef {
	for _, folder := range k.folders {
		if folder.Name == tenant.Spec.Parent {
			return folder.Spec.Templates
		}
	}
	return nil
}

func sameReference(ref api.TemplateRef, instance kioskInstance) bool {
	if ref.Sync != instance.Sync || len(ref.Parameters) != len(instance.Parameters) {
		return false
	}
	for _, p := range instance.Parameters {
		if value, ok := ref.Parameters[p.Name]; !ok || value != p.Value {
			return false
		}
	}
	return true
}

func (k *kioskImport) refer(about *unstructured.Unstructured, field string, tenant *api.Tenant, instance kioskInstance) {
	template := k.templates[instance.Template]
	if template == nil {
		k.note(about, tenantKey(tenant), "%s refers to the Template %q, which was not read or became none: it is left out", field, instance.Template)
		return
	}
	ref := api.TemplateRef{Name: template.Name, Sync: instance.Sync}
	for _, p := range instance.Parameters {
		if !slices.ContainsFunc(template.Spec.Parameters, func(known api.TemplateParameter) bool { return known.Name == p.Name }) {
			k.note(about, tenantKey(tenant), "%s gives the parameter %q, which the Template %q does not have: it is left out", field, p.Name, template.Name)
			continue
		}
		if ref.Parameters == nil {
			ref.Parameters = map[string]string{}
		}
		ref.Parameters[p.Name] = p.Value
	}
	k.applyTemplate(about, tenant, ref)
}

func (k *kioskImport) template(object *unstructured.Unstructured) error {
	from := &kioskTemplate{}
	template := k.Result.template(object, object.GetName(), "")
	template.Labels, template.Annotations = portable(object.GetLabels()), portable(object.GetAnnotations())
	of := templateKey(template)
	if err := k.decode(object, of, from, kioskGaps()); err != nil {
		return err
	}
	k.templates[object.GetName()] = template
	for i, p := range from.Parameters {
		parameter := api.TemplateParameter{Name: p.Name, Required: p.Required, Default: p.Value}
		known := slices.ContainsFunc(template.Spec.Parameters, func(known api.TemplateParameter) bool { return known.Name == p.Name })
		if !parameterName.MatchString(p.Name) || known {
			k.note(object, of, "parameters[%d] is left out: %q is not a name that no other parameter has, of letters, digits and _", i, p.Name)
			continue
		}
		if p.Required && p.Value != "" {
			k.note(object, of, "parameters[%d] (%s) is required, so that its default %q never counts: it is left out", i, p.Name, p.Value)
			parameter.Default = ""
		}
		pattern, ok := wholePattern(p.Validation)
		if !ok {
			k.note(object, of, "parameters[%d] (%s) has the validation %q, which is not a regular expression (RE2): any value is taken until you write a pattern", i, p.Name, p.Validation)
		}
		parameter.Pattern = pattern
		template.Spec.Parameters = append(template.Spec.Parameters, parameter)
	}
	for i, content := range from.Resources.Manifests {
		field := fmt.Sprintf("resources.manifests[%d]", i)
		text := func(text string) string { return k.text(object, field, template, text) }
		if err := k.addManifest(template, manifest{about: object, field: field, content: content, text: text}); err != nil {
			return err
		}
	}
	if helm := from.Resources.Helm; helm != nil {
		k.helm(object, template, helm)
	}
	return nil
}

// wholePattern makes a pattern for whole values of one that kiosk looks for
// anywhere in a value.
func wholePattern(pattern string) (string, bool) {
	if pattern == "" {
		return "", true
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return "", false
	}
	if strings.HasPrefix(pattern, "^") && strings.HasSuffix(pattern, "$") && !strings.Contains(pattern, "|") {
		return pattern, true
	}
	return "(?s:.*)(?:" + pattern + ")(?s:.*)", true
}

// kioskPlaceholder is a parameter in a text of kiosk: ${NAME}, or ${{NAME}} for
// one that becomes another type than text.
var kioskPlaceholder = regexp.MustCompile(`\$\{\{?([^{}]*)\}\}?`)

// text writes a text of kiosk with the placeholders of a Template here.
func (k *kioskImport) text(about *unstructured.Unstructured, field string, template *api.Template, text string) string {
	return kioskPlaceholder.ReplaceAllStringFunc(text, func(found string) string {
		name := strings.Trim(found, "${}")
		known := slices.ContainsFunc(template.Spec.Parameters, func(p api.TemplateParameter) bool { return p.Name == name })
		switch {
		case known:
			if strings.HasPrefix(found, "${{") {
				k.note(about, templateKey(template), "%s: %s was read as a number or a truth value by kiosk, and is ${%s} here: give the parameter %q that type", field, found, name, name)
			}
			return "${" + name + "}"
		case name == "NAMESPACE":
			return "${tenant.namespace}"
		case name == "ACCOUNT":
			return "${tenant.parent}"
		}
		k.note(about, templateKey(template), "%s: %s names no parameter of the template, and stays as text", field, found)
		return literal(found)
	})
}

// fullVersion is one version of a chart, and no range or channel.
var fullVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+([-+].+)?$`)

// releaseName is what a release may be called.
var releaseName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$`)

// helm makes the chart of a template of one of kiosk's.
func (k *kioskImport) helm(object *unstructured.Unstructured, template *api.Template, helm *kioskHelm) {
	of := templateKey(template)
	repository := helm.Chart.Repository
	if repository == nil || repository.Name == "" || repository.RepoURL == "" {
		k.note(object, of, "resources.helm names no chart of a repository: write spec.chart")
		return
	}
	at, err := url.Parse(repository.RepoURL)
	if err != nil || at.Host == "" || !slices.Contains([]string{"http", "https", "oci"}, at.Scheme) {
		k.note(object, of, "resources.helm (the chart %q) is not in the template: its repository is no URL of http, https or oci; write spec.chart.repository", repository.Name)
		return
	}
	if at.User != nil {
		at.User = nil
		k.note(object, of, "resources.helm.chart.repository.repoUrl: %s", kioskCredentials)
	}
	if !fullVersion.MatchString(repository.Version) {
		k.note(object, of, "resources.helm (the chart %q from %s) is not in the template: its version %q is not one version in full, so that it would change by itself; write spec.chart with one",
			repository.Name, at, repository.Version)
		return
	}
	chart := &api.TemplateChart{Repository: &api.ChartRepository{URL: at.String(), Name: repository.Name, Version: repository.Version}}
	if at.Scheme != "http" {
		k.note(object, of, "spec.chart.repository.caBundle is missing, and the manager's image knows no public authorities: add the certificates of the one that %s has", at.Host)
	}
	switch {
	case helm.ReleaseName == "" || releaseName.MatchString(helm.ReleaseName):
		chart.ReleaseName = helm.ReleaseName
	default:
		k.note(object, of, "resources.helm.releaseName %q can be none here: the release is called as the template", helm.ReleaseName)
	}
	if values := k.helmValues(object, template, helm); len(values) > 0 {
		raw, err := json.Marshal(values)
		if err != nil {
			k.note(object, of, "resources.helm.values cannot be written as JSON (%v): write spec.chart.values", err)
		} else {
			chart.Values = &runtime.RawExtension{Raw: raw}
		}
	}
	template.Spec.Chart = chart
}

// helmValues are the values for a chart: those of the text, and those that are set
// one by one above them.
func (k *kioskImport) helmValues(object *unstructured.Unstructured, template *api.Template, helm *kioskHelm) map[string]any {
	of := templateKey(template)
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(helm.Values), &values); err != nil {
		k.note(object, of, "resources.helm.values is no YAML before parameters are put into it: write spec.chart.values")
	}
	if values == nil {
		values = map[string]any{}
	}
	for i, set := range helm.SetValues {
		parse := strvals.ParseInto
		if set.ForceString {
			parse = strvals.ParseIntoString
		}
		if err := parse(set.Name+"="+set.Value, values); err != nil {
			k.note(object, of, "resources.helm.setValues[%d] (%s) is left out: %v", i, set.Name, err)
		}
	}
	const field = "resources.helm"
	noted := map[string]bool{}
	text := func(text string) string {
		written := k.text(object, field, template, text)
		// kiosk put the value into text, where it could become a number.
		if name, alone := strings.CutPrefix(written, "${"); alone && text == written && strings.Index(written, "}") == len(written)-1 && !noted[written] {
			noted[written] = true
			k.note(object, of, "%s: the value of %s is text: where the chart needs a number, a truth value or a list, give the parameter %q that type", field, written, strings.TrimSuffix(name, "}"))
		}
		return written
	}
	filled, _ := rewrite(values, text).(map[string]any)
	for _, key := range keysWithPlaceholders(filled) {
		k.note(object, of, "%s: the key %q holds a parameter, which stays as text there", field, key)
	}
	return filled
}

// keysWithPlaceholders are the keys in a tree in which kiosk would have seen a
// parameter.
func keysWithPlaceholders(value any) []string {
	var keys []string
	switch v := value.(type) {
	case []any:
		for i := range v {
			keys = append(keys, keysWithPlaceholders(v[i])...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if kioskPlaceholder.MatchString(key) {
				keys = append(keys, key)
			}
			keys = append(keys, keysWithPlaceholders(v[key])...)
		}
	}
	return keys
}
