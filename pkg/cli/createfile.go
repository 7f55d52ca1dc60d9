package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// goesWithFile says whether a flag goes with a file; the others describe a tenant.
func goesWithFile(name string) bool {
	return slices.Contains([]string{"filename", "dry-run", "wait", "timeout", "output"}, name)
}

// checkFlags refuses flags that describe a tenant beside a file that does.
func checkFlags(flags, inherited *pflag.FlagSet) error {
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if err == nil && !goesWithFile(f.Name) && inherited.Lookup(f.Name) == nil {
			err = usagef("--%s describes a tenant, and so does the file: use one of them", f.Name)
		}
	})
	return err
}

// written are the objects of a file.
type written struct {
	templates []*api.Template
	tenants   []*api.Tenant
}

// runFiles makes the templates and the tenants of files, tenants above first.
func (o *createOptions) runFiles(ctx context.Context) error {
	objects, err := o.readFiles()
	if err != nil {
		return err
	}
	tenants := objects.tenants
	if o.dryRun == "client" {
		return o.reportAll(tenants, "would be created (dry run, the host was not asked)")
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	started := time.Now()
	for _, template := range objects.templates {
		progress.Step("template %s: asking the host to make it", template.Name)
		if err := o.ensureTemplate(ctx, clients, template); err != nil {
			return fmt.Errorf("template %q: %w", template.Name, err)
		}
	}
	var made []*api.Tenant
	for _, tenant := range tenants {
		progress.Step("tenant %s: asking the host to make it", tenant.Name)
		created, _, err := o.ensure(ctx, clients, tenant)
		if err != nil {
			return fmt.Errorf("tenant %q: %w", tenant.Name, err)
		}
		made = append(made, created)
	}
	switch {
	case o.dryRun == "server":
		progress.End()
		return o.reportAll(made, "would be created (dry run)")
	case !o.wait:
		progress.End()
		return o.reportAll(made, "is being made")
	}
	for i, tenant := range made {
		wait := &waiter{app: o.app, clients: clients, progress: progress, timeout: max(o.timeout-time.Since(started), time.Second)}
		if made[i], err = wait.wait(ctx, tenant); err == nil {
			made[i], err = o.waitTemplates(ctx, clients, made[i], progress)
		}
		if err != nil {
			return interrupted(ctx, err, "the tenants go on being made. Run the same command again to go on waiting.")
		}
	}
	progress.End()
	return o.reportAll(made, "is ready after "+roughly(time.Since(started)))
}

func (o *createOptions) reportAll(tenants []*api.Tenant, what string) error {
	if o.output.format == "" || o.output.format == "name" {
		for _, tenant := range tenants {
			if err := o.report(tenant, what); err != nil {
				return err
			}
		}
		return nil
	}
	list := &api.TenantList{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "TenantList"}}
	for _, tenant := range tenants {
		list.Items = append(list.Items, *withKind(tenant))
	}
	return o.output.object(o.Stdout, list)
}

// readFiles reads the objects of all files, and orders the tenants.
func (o *createOptions) readFiles() (written, error) {
	var all written
	for _, file := range o.files {
		content, err := o.readFile(file)
		if err != nil {
			return all, usagef("reading %s: %v", file, err)
		}
		found, err := readObjects(content)
		if err != nil {
			return all, usagef("%s: %v", file, err)
		}
		all.templates = append(all.templates, found.templates...)
		all.tenants = append(all.tenants, found.tenants...)
	}
	if len(all.tenants) == 0 {
		return all, usagef("there is no tenant in %s", quoteList(o.files, "and"))
	}
	for i, template := range all.templates {
		if slices.ContainsFunc(all.templates[:i], func(t *api.Template) bool { return t.Name == template.Name }) {
			return all, usagef("template %q is there twice", template.Name)
		}
	}
	for i, tenant := range all.tenants {
		if slices.ContainsFunc(all.tenants[:i], func(t *api.Tenant) bool { return t.Name == tenant.Name }) {
			return all, usagef("tenant %q is there twice", tenant.Name)
		}
		if err := checkTenant(tenant); err != nil {
			return all, err
		}
	}
	all.tenants = parentsFirst(all.tenants)
	return all, nil
}

func (o *createOptions) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(o.Stdin)
	}
	return os.ReadFile(name)
}

// readObjects reads Tenants and Templates, as YAML documents or JSON, strictly.
func readObjects(content []byte) (written, error) {
	var all written
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if err := all.read(document); err != nil {
			return all, err
		}
	}
}

// read reads one object, or a list of them.
func (w *written) read(document []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	if kind == (metav1.TypeMeta{}) && len(bytes.TrimSpace(withoutComments(document))) == 0 {
		return nil
	}
	ours := kind.APIVersion == api.GroupVersion.String()
	switch {
	case kind.APIVersion == "v1" && kind.Kind == "List":
		var list struct {
			metav1.TypeMeta `json:",inline"`
			metav1.ListMeta `json:"metadata"`
			Items           []json.RawMessage `json:"items"`
		}
		if err := yaml.UnmarshalStrict(document, &list); err != nil {
			return err
		}
		for _, item := range list.Items {
			if err := w.read(item); err != nil {
				return err
			}
		}
	case ours && kind.Kind == "Template":
		template := &api.Template{}
		if err := yaml.UnmarshalStrict(document, template); err != nil {
			return err
		}
		w.templates = append(w.templates, template)
	case ours && kind.Kind == "Tenant":
		tenant := &api.Tenant{}
		if err := yaml.UnmarshalStrict(document, tenant); err != nil {
			return err
		}
		if tenant.Spec.Type == "" {
			tenant.Spec.Type = api.VirtualCluster
		}
		w.tenants = append(w.tenants, tenant)
	default:
		return fmt.Errorf("there is an object of kind %q in %q, and this makes Tenants and Templates of %s only: use kubectl apply", kind.Kind, kind.APIVersion, api.GroupVersion)
	}
	return nil
}

// ensureTemplate makes a template, or finds that it has been made before as it is.
func (o *createOptions) ensureTemplate(ctx context.Context, clients *hostClients, template *api.Template) error {
	options := metav1.CreateOptions{FieldManager: fieldOwner}
	if o.dryRun == "server" {
		options.DryRun = []string{metav1.DryRunAll}
	}
	err := clients.tenants.CreateTemplate(ctx, template, options)
	if apierrors.IsInvalid(err) {
		return hint(fmt.Errorf("the host refuses it: %w", err), "Mend what it names and run again.")
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := clients.tenants.GetTemplate(ctx, template.Name)
	if err != nil {
		return fmt.Errorf("it exists already: %w", err)
	}
	before, err := tree(old.Spec)
	if err != nil {
		return err
	}
	after, err := tree(template.Spec)
	if err != nil {
		return err
	}
	if differences := treeDifferences("spec", before, after); len(differences) > 0 {
		return hint(fmt.Errorf("the name is taken, by another template:\n  %s", strings.Join(differences, "\n  ")),
			"Choose another name, or change that one for all who use it: kubectl apply.")
	}
	return nil
}

func withoutComments(document []byte) []byte {
	var kept [][]byte
	for _, line := range bytes.Split(document, []byte("\n")) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && !bytes.HasPrefix(line, []byte("---")) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, []byte("\n"))
}

// checkTenant names what the schema of a Tenant does not refuse by itself.
func checkTenant(tenant *api.Tenant) error {
	if err := checkName(tenant.Name); err != nil {
		return err
	}
	if err := tenancy.ValidateNamespace(tenant, api.SystemNamespace); err != nil {
		return &usageError{err: fmt.Errorf("tenant %q: %w", tenant.Name, err)}
	}
	problems := append(tenancy.ValidateLimits(tenant), tenancy.ValidateVirtualCluster(tenant)...)
	if err := problems.ToAggregate(); err != nil {
		return &usageError{err: fmt.Errorf("tenant %q: %w", tenant.Name, err)}
	}
	return nil
}

// parentsFirst orders tenants so that each comes after the one above it; those of
// a ring come as they are, for the host to say so.
func parentsFirst(tenants []*api.Tenant) []*api.Tenant {
	byName := map[string]*api.Tenant{}
	for _, tenant := range tenants {
		byName[tenant.Name] = tenant
	}
	var ordered []*api.Tenant
	begun := map[string]bool{}
	var add func(tenant *api.Tenant)
	add = func(tenant *api.Tenant) {
		if tenant == nil || begun[tenant.Name] {
			return
		}
		begun[tenant.Name] = true
		add(byName[tenancy.Parent(tenant)])
		ordered = append(ordered, tenant)
	}
	for _, tenant := range tenants {
		add(tenant)
	}
	return ordered
}
