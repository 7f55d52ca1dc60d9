package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/template"
)

func newTemplatesCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "templates [NAME]",
		Aliases: []string{"template"},
		Short:   "List the templates and who uses them, or show one",
		Long: `List the templates and how many tenants use them; with a name, its parameters and how
far it is in each tenant that you may see.`,
		Example: examples(a.name, `
%[1]s templates
%[1]s templates baseline
%[1]s create shop --type Namespace --template web --set host=shop.example.com`),
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeTemplates(cmd, args, toComplete)
		},
		RunE: a.run(func(ctx context.Context, args []string) error {
			if err := out.validate(); err != nil {
				return err
			}
			if len(args) == 0 {
				return a.listTemplates(ctx, out)
			}
			return a.showTemplate(ctx, args[0], out)
		}),
	}
	out.addFlag(cmd, cmd.Flags(), "table", "json", "yaml", "name")
	return cmd
}

func (a *app) listTemplates(ctx context.Context, out output) error {
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	list, err := clients.tenants.Templates(ctx)
	if err != nil {
		return a.templatesHidden(err)
	}
	if out.format != "" && out.format != "table" {
		return out.object(a.Stdout, list)
	}
	if len(list.Items) == 0 {
		a.warnf("There are no templates.\n")
		return nil
	}
	var rows [][]string
	for i := range list.Items {
		t := &list.Items[i]
		rolled := meta.FindStatusCondition(t.Status.Conditions, api.ConditionRolledOut)
		state := "unknown"
		if rolled != nil && rolled.ObservedGeneration == t.Generation {
			state = rolled.Reason
		}
		if meta.IsStatusConditionFalse(t.Status.Conditions, api.ConditionValid) {
			state = "Invalid"
		}
		rows = append(rows, []string{
			t.Name, strconv.Itoa(int(t.Status.Tenants)), strconv.Itoa(int(t.Status.Applied)), strconv.Itoa(int(t.Status.Failed)),
			state, strings.Join(parameterNames(t), ","), t.Spec.Description,
		})
	}
	return table(a.Stdout, []string{"NAME", "TENANTS", "APPLIED", "FAILED", "STATE", "PARAMETERS", "DESCRIPTION"}, rows)
}

func (a *app) templatesHidden(err error) error {
	if apierrors.IsForbidden(err) {
		return hint(fmt.Errorf("you may not see templates on the host (%s): %w", a.host.where(), err),
			"Ask a platform admin to bind you to the ClusterRole sublet-templates-view.")
	}
	return err
}

// parameterNames has a star at those that must be given.
func parameterNames(t *api.Template) []string {
	var names []string
	for _, p := range t.Spec.Parameters {
		name := p.Name
		if p.Required {
			name += "*"
		}
		names = append(names, name)
	}
	return names
}

func (a *app) showTemplate(ctx context.Context, name string, out output) error {
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	t, err := a.template(ctx, clients, name)
	if err != nil {
		return a.templatesHidden(err)
	}
	if out.format != "" && out.format != "table" {
		return out.object(a.Stdout, t)
	}
	a.printf("Name:         %s\n", t.Name)
	if t.Spec.Description != "" {
		a.printf("Description:  %s\n", t.Spec.Description)
	}
	for _, kind := range []string{api.ConditionValid, api.ConditionRolledOut} {
		if c := meta.FindStatusCondition(t.Status.Conditions, kind); c != nil {
			a.printf("%-13s %s: %s\n", kind+":", c.Reason, c.Message)
		}
	}
	var rows [][]string
	for _, p := range t.Spec.Parameters {
		value := p.Default
		switch {
		case p.Required:
			value = "(required)"
		case value == "":
			value = "-"
		}
		allowed := p.Pattern
		if len(p.Enum) > 0 {
			allowed = strings.Join(p.Enum, ", ")
		}
		rows = append(rows, []string{p.Name, orElse(string(p.Type), string(api.ParameterString)), value, orElse(allowed, "-"), p.Description})
	}
	if len(rows) > 0 {
		a.printf("\n")
		if err := table(a.Stdout, []string{"PARAMETER", "TYPE", "DEFAULT", "ALLOWED", "DESCRIPTION"}, rows); err != nil {
			return err
		}
	}
	// Whoever sees no tenant sees the template all the same.
	tenants, err := a.visible(ctx, clients)
	if apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	rows = usersOf(tenants, name)
	if len(rows) == 0 {
		return nil
	}
	a.printf("\n")
	return table(a.Stdout, []string{"TENANT", "FROM", "SYNC", "STATE", "MESSAGE"}, rows)
}

// usersOf are the tenants that a template applies to.
func usersOf(tenants *api.TenantList, name string) [][]string {
	var rows [][]string
	for i := range tenants.Items {
		t := &tenants.Items[i]
		if t.Status.Effective == nil || t.Spec.Type == api.Folder {
			continue
		}
		for _, ref := range t.Status.Effective.Templates {
			if ref.Name == name {
				state, message := templateState(t, name)
				rows = append(rows, []string{t.Name, fromText([]string{ref.From}, t.Name), strconv.FormatBool(ref.Sync), state, message})
			}
		}
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return rows
}

// templateState is how far a template is in a tenant.
func templateState(t *api.Tenant, name string) (state, message string) {
	for _, entry := range t.Status.Templates {
		if entry.Name == name {
			return string(entry.State), entry.Message
		}
	}
	return string(api.TemplateWaiting), ""
}

// template finds a template by its name; if there is none it says which there are.
func (a *app) template(ctx context.Context, clients *hostClients, name string) (*api.Template, error) {
	t, err := clients.tenants.Template(ctx, name)
	if !apierrors.IsNotFound(err) || notInstalled(err) {
		return t, err
	}
	err = fmt.Errorf("there is no template %q", name)
	list, listErr := clients.tenants.Templates(ctx)
	if listErr != nil || len(list.Items) == 0 {
		return nil, hint(err, "There is none at all that you can see: a platform admin makes them.")
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return nil, hint(err, "There is %s.", quoteList(sorted(names), "and"))
}

// parseTemplates reads --template and --set.
func parseTemplates(names, settings []string, sync bool) ([]api.TemplateRef, error) {
	if len(names) == 0 {
		if len(settings) > 0 || sync {
			return nil, usagef("--set and --sync are for templates: name one with --template")
		}
		return nil, nil
	}
	var refs []api.TemplateRef
	for _, name := range names {
		if slices.ContainsFunc(refs, func(r api.TemplateRef) bool { return r.Name == name }) {
			return nil, usagef("template %q is named twice", name)
		}
		refs = append(refs, api.TemplateRef{Name: name, Sync: sync})
	}
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, "=")
		if !ok || key == "" {
			return nil, usagef("--set %q: write it as PARAMETER=VALUE", setting)
		}
		at := 0
		if of, parameter, qualified := strings.Cut(key, "."); qualified {
			if at = slices.Index(names, of); at < 0 {
				return nil, usagef("--set %q: there is no --template %s", setting, of)
			}
			key = parameter
		} else if len(refs) > 1 {
			return nil, usagef("--set %q: with several templates write it as TEMPLATE.PARAMETER=VALUE", setting)
		}
		if refs[at].Parameters == nil {
			refs[at].Parameters = map[string]string{}
		}
		refs[at].Parameters[key] = value
	}
	return refs, nil
}

// checkTemplates refuses parameters that the templates do not have or allow.
func (o *createOptions) checkTemplates(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	for _, ref := range tenant.Spec.Templates {
		t, err := o.app.template(ctx, clients, ref.Name)
		if err != nil {
			return err
		}
		if _, err := template.ValuesFor(t, ref.Parameters); err != nil {
			return hint(err, "See its parameters with: %s templates %s", o.app.name, ref.Name)
		}
	}
	return nil
}

// waitTemplates waits until the templates of a tenant are applied. One that failed
// may come by itself, so that it is not taken for an answer at once.
func (o *createOptions) waitTemplates(ctx context.Context, clients *hostClients, tenant *api.Tenant, progress *progress) (*api.Tenant, error) {
	if len(tenant.Spec.Templates) == 0 || tenant.Spec.Type == api.Folder {
		return tenant, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, errors.New("the templates are not applied in time"))
	defer cancel()
	changes := follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) { return clients.tenants.Watch(ctx, tenant.Name) },
		func(ctx context.Context) (*api.Tenant, error) { return clients.tenants.Get(ctx, tenant.Name) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var failing time.Time
	for {
		state, message := templatesState(tenant)
		switch state {
		case api.TemplateApplied:
			return tenant, nil
		case api.TemplateFailed:
			if failing.IsZero() {
				failing = time.Now()
			}
			if time.Since(failing) > brokenPatience {
				return nil, hint(fmt.Errorf("tenant %q can be used, but not all of its templates are applied: %s", tenant.Name, message),
					"It is tried again when the template or the tenant changes. See %s describe %s.", o.app.name, tenant.Name)
			}
		default:
			failing = time.Time{}
		}
		progress.Step("applying templates")
		select {
		case <-tick.C:
		case c, ok := <-changes:
			switch {
			case !ok:
				return nil, context.Cause(ctx)
			case c.err != nil:
				return nil, c.err
			case c.gone:
				return nil, hint(fmt.Errorf("tenant %q was deleted meanwhile", tenant.Name), "Create it again.")
			}
			tenant = withKind(c.object)
		}
	}
}

// templatesState is the worst state of the templates that a tenant names itself.
func templatesState(tenant *api.Tenant) (api.TemplateState, string) {
	worst, text := api.TemplateApplied, ""
	for _, ref := range tenant.Spec.Templates {
		state, message := templateState(tenant, ref.Name)
		switch {
		case state == string(api.TemplateFailed):
			return api.TemplateFailed, fmt.Sprintf("template %q: %s", ref.Name, message)
		case state != string(api.TemplateApplied):
			worst, text = api.TemplateState(state), message
		}
	}
	return worst, text
}

// Templates lists all.
func (c *tenantClient) Templates(ctx context.Context) (*api.TemplateList, error) {
	list := &api.TemplateList{}
	if err := c.rest.Get().Resource(templateResource).Do(ctx).Into(list); err != nil {
		return nil, err
	}
	list.SetGroupVersionKind(api.GroupVersion.WithKind("TemplateList"))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(api.GroupVersion.WithKind("Template"))
	}
	return list, nil
}

func (c *tenantClient) Template(ctx context.Context, name string) (*api.Template, error) {
	t := &api.Template{}
	if err := c.rest.Get().Resource(templateResource).Name(name).Do(ctx).Into(t); err != nil {
		return nil, err
	}
	t.SetGroupVersionKind(api.GroupVersion.WithKind("Template"))
	return t, nil
}

// completeTemplates completes names of templates.
func (a *app) completeTemplates(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	clients, err := a.host.clients()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := clients.tenants.Templates(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := map[string]bool{}
	for i := range list.Items {
		names[list.Items[i].Name] = true
	}
	return slices.Sorted(maps.Keys(names)), cobra.ShellCompDirectiveNoFileComp
}
