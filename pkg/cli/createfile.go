package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"
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

// runFiles makes the tenants of files, those above first.
func (o *createOptions) runFiles(ctx context.Context) error {
	tenants, err := o.readFiles()
	if err != nil {
		return err
	}
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
		if made[i], err = wait.wait(ctx, tenant); err != nil {
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

// readFiles reads the tenants of all files, and orders them.
func (o *createOptions) readFiles() ([]*api.Tenant, error) {
	var tenants []*api.Tenant
	for _, file := range o.files {
		content, err := o.readFile(file)
		if err != nil {
			return nil, usagef("reading %s: %v", file, err)
		}
		found, err := readTenants(content)
		if err != nil {
			return nil, usagef("%s: %v", file, err)
		}
		tenants = append(tenants, found...)
	}
	if len(tenants) == 0 {
		return nil, usagef("there is no tenant in %s", quoteList(o.files, "and"))
	}
	for i, tenant := range tenants {
		if slices.ContainsFunc(tenants[:i], func(t *api.Tenant) bool { return t.Name == tenant.Name }) {
			return nil, usagef("tenant %q is there twice", tenant.Name)
		}
		if err := checkTenant(tenant); err != nil {
			return nil, err
		}
	}
	return parentsFirst(tenants), nil
}

func (o *createOptions) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(o.Stdin)
	}
	return os.ReadFile(name)
}

// readTenants reads Tenants, as YAML documents or JSON, strictly.
func readTenants(content []byte) ([]*api.Tenant, error) {
	var tenants []*api.Tenant
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return tenants, nil
		}
		if err != nil {
			return nil, err
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, err
		}
		if kind == (metav1.TypeMeta{}) && len(bytes.TrimSpace(withoutComments(document))) == 0 {
			continue
		}
		if kind.APIVersion != api.GroupVersion.String() || kind.Kind != "Tenant" {
			return nil, fmt.Errorf("there is an object of kind %q in %q, and this makes Tenants of %s only: use kubectl apply", kind.Kind, kind.APIVersion, api.GroupVersion)
		}
		tenant := &api.Tenant{}
		if err := yaml.UnmarshalStrict(document, tenant); err != nil {
			return nil, err
		}
		if tenant.Spec.Type == "" {
			tenant.Spec.Type = api.VirtualCluster
		}
		tenants = append(tenants, tenant)
	}
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
