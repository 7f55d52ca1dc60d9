package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// createOptions are the flags of create.
type createOptions struct {
	*app
	name string
	// files describe tenants, instead of name and flags.
	files []string

	tenantType   string
	parent       string
	namespace    string
	version      string
	image        string
	ephemeral    bool
	storageClass string
	storageSize  string
	quota        map[string]string
	podSecurity  string
	members      []string
	ttl          time.Duration
	featureGates map[string]string
	templates    []string
	settings     []string
	sync         bool

	dryRun  string
	output  output
	wait    bool
	timeout time.Duration
	connect bool
	// adopting says that the namespace may be there already.
	adopting bool
}

func newCreateCommand(a *app) *cobra.Command {
	o := &createOptions{app: a}
	cmd := &cobra.Command{
		Use:     "create NAME | -f FILE",
		Short:   "Make a tenant and wait until it can be used",
		GroupID: groupUse,
		Long: `Make a tenant and wait until it can be used: a virtual cluster until its API
answers, a plain namespace until it stands with its fence.

Interrupted and run again with the same flags, it goes on where it was.`,
		Example: examples(a.name, `
# A virtual cluster, and go in.
%[1]s create acme --connect

# One that shows the API of Kubernetes 1.34, with limits.
%[1]s create acme --version 1.34 --quota requests.cpu=4,requests.memory=8Gi,pods=50

# A plain namespace for a group of people.
%[1]s create shop --type Namespace --member group:shop-team=edit

# For tests: its data dies with its pod.
%[1]s create try --ephemeral

# One below a team, by whoever is admin of that; and what is in a file, at once.
%[1]s create shop --type Namespace --parent team1 --template web --set host=shop.example.com
%[1]s create -f company.yaml

# For a pull request: gone by itself after eight hours.
%[1]s create pr-17 --parent previews --ephemeral --ttl 8h

# The object, for git.
%[1]s create acme --dry-run=client -o yaml`),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(o.files) == 0 {
				return exactlyOneName(cmd, args)
			}
			if len(args) > 0 {
				return fmt.Errorf("the names are in the file: leave out %s", strings.Join(args, " "))
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: a.run(func(ctx context.Context, args []string) error {
			if len(o.files) > 0 {
				return o.run(ctx)
			}
			o.name = args[0]
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "file with Tenants to make, and Templates for them, as YAML or JSON, - for standard input; may be repeated")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if len(o.files) == 0 {
			return nil
		}
		return checkFlags(cmd.Flags(), cmd.InheritedFlags())
	}
	flags.StringVar(&o.tenantType, "type", string(api.VirtualCluster), "VirtualCluster, Namespace or Folder")
	flags.StringVar(&o.parent, "parent", "", "tenant above this one (default: the root of the tree)")
	flags.StringVar(&o.namespace, "namespace", "", "namespace on the host (default: the tenant's name)")
	flags.StringVar(&o.version, "version", "", "Kubernetes version that the tenant sees, "+strings.Join(tenancy.Versions(), ", ")+" (default: the newest)")
	flags.StringVar(&o.image, "image", "", "image of the control plane (default: the manager's)")
	flags.BoolVar(&o.ephemeral, "ephemeral", false, "keep the control plane's data with its pod, without a volume: it is lost with the pod")
	flags.StringVar(&o.storageClass, "storage-class", "", "the host's storage class for the control plane's data (default: the host's default)")
	flags.StringVar(&o.storageSize, "storage-size", "", "size of the volume for the control plane's data, such as 4Gi")
	flags.StringToStringVar(&o.quota, "quota", nil, "bounds on what the tenant may use, as in a ResourceQuota: requests.cpu=4,requests.memory=8Gi,pods=50")
	flags.StringVar(&o.podSecurity, "pod-security", "", "level of the Pod Security Standards: privileged, baseline or restricted (default: baseline)")
	flags.StringArrayVar(&o.members, "member", nil, "who may use the tenant: user:NAME=ROLE, group:NAME=ROLE or serviceaccount:NAMESPACE/NAME=ROLE, with role admin, edit or view; may be repeated")
	flags.DurationVar(&o.ttl, "ttl", 0, "how long the tenant lives, such as 8h: then it is deleted with all that is in it (default: until it is deleted)")
	flags.StringToStringVar(&o.featureGates, "feature-gates", nil, "feature gates of the control plane: Name=true,Other=false")
	flags.StringArrayVar(&o.templates, "template", nil, "template to apply in the tenant; may be repeated")
	flags.StringArrayVar(&o.settings, "set", nil, "parameter of the template, PARAMETER=VALUE; of several templates TEMPLATE.PARAMETER=VALUE; may be repeated")
	flags.BoolVar(&o.sync, "sync", false, "keep in force what the templates make, and roll out changes of them (default: apply them once)")
	flags.StringVar(&o.dryRun, "dry-run", "none", "none, client (only print the object) or server (ask the host, but make nothing)")
	flags.Lookup("dry-run").NoOptDefVal = "client"
	flags.BoolVar(&o.wait, "wait", true, "wait until the tenant can be used")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	flags.BoolVar(&o.connect, "connect", false, "connect to the tenant when it can be used")
	o.output.addFlag(cmd, flags, "json", "yaml", "name")
	completeValues(cmd, "type", string(api.VirtualCluster), string(api.Namespace), string(api.Folder))
	completeValues(cmd, "version", tenancy.Versions()...)
	completeValues(cmd, "pod-security", podSecurityLevels()...)
	completeValues(cmd, "dry-run", "none", "client", "server")
	_ = cmd.RegisterFlagCompletionFunc("parent", a.completeTenants(true))
	_ = cmd.RegisterFlagCompletionFunc("template", a.completeTemplates)
	return cmd
}

func exactlyOneName(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("the name of the tenant is missing")
	}
	return atMostOneName(cmd, args)
}

func atMostOneName(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("one name is enough, and there are %d: %s", len(args), strings.Join(args, " "))
	}
	return nil
}

func completeValues(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func podSecurityLevels() []string {
	return []string{string(api.PodSecurityPrivileged), string(api.PodSecurityBaseline), string(api.PodSecurityRestricted)}
}

// tenant makes the object that the flags describe.
func (o *createOptions) tenant() (*api.Tenant, error) {
	if err := checkName(o.name); err != nil {
		return nil, err
	}
	tenantType, err := parseType(o.tenantType)
	if err != nil {
		return nil, err
	}
	tenant := &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: o.name},
		Spec:       api.TenantSpec{Type: tenantType, Parent: o.parent, Namespace: o.namespace},
	}
	for _, text := range o.members {
		member, err := parseMember(text)
		if err != nil {
			return nil, err
		}
		tenant.Spec.Members = tenancy.AddMember(tenant.Spec.Members, member)
	}
	switch {
	case o.ttl < 0:
		return nil, usagef("--ttl %s: it cannot have ended before it begins", o.ttl)
	case o.ttl > 0:
		tenant.Spec.TTL = &metav1.Duration{Duration: o.ttl}
	}
	if tenant.Spec.Templates, err = parseTemplates(o.templates, o.settings, o.sync); err != nil {
		return nil, err
	}
	if tenant.Spec.Limits, err = o.limits(); err != nil {
		return nil, err
	}
	if tenant.Spec.VirtualCluster, err = o.virtualCluster(); err != nil {
		return nil, err
	}
	if tenant.Spec.VirtualCluster != nil && tenantType != api.VirtualCluster {
		return nil, usagef("--version, --image, --ephemeral, --storage-class, --storage-size and --feature-gates are for --type VirtualCluster, not %s", tenantType)
	}
	if tenantType == api.Folder && o.namespace != "" {
		return nil, usagef("a Folder has no namespace: leave out --namespace")
	}
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	return withKind(tenant), nil
}

func parseType(text string) (api.TenantType, error) {
	types := []api.TenantType{api.VirtualCluster, api.Namespace, api.Folder}
	for _, known := range types {
		if strings.EqualFold(text, string(known)) {
			return known, nil
		}
	}
	return "", usagef("unknown type %q: use VirtualCluster, Namespace or Folder", text)
}

func (o *createOptions) limits() (*api.Limits, error) {
	limits := api.Limits{PodSecurity: api.PodSecurityLevel(o.podSecurity)}
	if o.podSecurity != "" && !slices.Contains(podSecurityLevels(), o.podSecurity) {
		return nil, usagef("unknown Pod Security level %q: use %s", o.podSecurity, quoteList(podSecurityLevels(), "or"))
	}
	quota, err := parseQuota(o.quota)
	if err != nil {
		return nil, err
	}
	limits.Quota = quota
	if reflect.DeepEqual(limits, api.Limits{}) {
		return nil, nil
	}
	return &limits, nil
}

// parseQuota reads the amounts of a quota.
func parseQuota(texts map[string]string) (corev1.ResourceList, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	quota := corev1.ResourceList{}
	for name, text := range texts {
		amount, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, usagef("--quota %s=%s: %q is not an amount: write it as 500m, 4, 8Gi", name, text, text)
		}
		quota[corev1.ResourceName(name)] = amount
	}
	return quota, nil
}

// parseMember reads KIND:NAME=ROLE.
func parseMember(text string) (api.Member, error) {
	subject, role, hasRole := strings.Cut(text, "=")
	if at := strings.LastIndex(text, "="); at >= 0 {
		subject, role = text[:at], text[at+1:] // names may contain =, as those of certificates do
	}
	kind, name, hasKind := strings.Cut(subject, ":")
	if !hasRole || !hasKind || name == "" {
		return api.Member{}, usagef("member %q: write it as user:NAME=ROLE, group:NAME=ROLE or serviceaccount:NAMESPACE/NAME=ROLE", text)
	}
	member := api.Member{Name: name, Role: api.Role(role)}
	if !slices.Contains(roles(), member.Role) {
		return api.Member{}, usagef("member %q: the role is admin, edit or view, not %q", text, role)
	}
	switch strings.ToLower(kind) {
	case "user":
		member.Kind = "User"
	case "group":
		member.Kind = "Group"
	case "serviceaccount", "sa":
		member.Kind = "ServiceAccount"
		namespace, account, ok := strings.Cut(name, "/")
		if !ok || namespace == "" || account == "" {
			return api.Member{}, usagef("member %q: a service account is written as serviceaccount:NAMESPACE/NAME=ROLE", text)
		}
		member.Namespace, member.Name = namespace, account
	default:
		return api.Member{}, usagef("member %q: the kind is user, group or serviceaccount, not %q", text, kind)
	}
	return member, nil
}

// roles from the one with most rights to the one with least.
func roles() []api.Role {
	return []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView}
}

func (o *createOptions) virtualCluster() (*api.VirtualClusterSpec, error) {
	spec := api.VirtualClusterSpec{Version: strings.TrimPrefix(o.version, "v"), Image: o.image}
	if parts := strings.Split(spec.Version, "."); len(parts) == 3 {
		return nil, usagef("--version %s: name a minor version only, such as %s.%s", o.version, parts[0], parts[1])
	}
	for name, text := range o.featureGates {
		switch strings.ToLower(text) {
		case "true", "false":
		default:
			return nil, usagef("--feature-gates %s=%s: write true or false", name, text)
		}
		if spec.FeatureGates == nil {
			spec.FeatureGates = map[string]bool{}
		}
		spec.FeatureGates[name] = strings.EqualFold(text, "true")
	}
	storage, err := o.storage()
	if err != nil {
		return nil, err
	}
	spec.Storage = storage
	if reflect.DeepEqual(spec, api.VirtualClusterSpec{}) {
		return nil, nil
	}
	return &spec, nil
}

func (o *createOptions) storage() (*api.StorageSpec, error) {
	if !o.ephemeral && o.storageClass == "" && o.storageSize == "" {
		return nil, nil
	}
	storage := &api.StorageSpec{Type: api.StoragePVC}
	if o.ephemeral {
		if o.storageClass != "" {
			return nil, usagef("--ephemeral means no volume, and --storage-class one of that class: use one of them")
		}
		storage.Type = api.StorageEmptyDir
	}
	if o.storageClass != "" {
		storage.Class = &o.storageClass
	}
	if o.storageSize != "" {
		size, err := resource.ParseQuantity(o.storageSize)
		if err != nil {
			return nil, usagef("--storage-size %q is not an amount: write it as 4Gi", o.storageSize)
		}
		storage.Size = &size
	}
	return storage, nil
}

func (o *createOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	if !slices.Contains([]string{"none", "client", "server"}, o.dryRun) {
		return usagef("--dry-run %q: use none, client or server", o.dryRun)
	}
	if o.connect && (!o.wait || o.dryRun != "none") {
		return usagef("--connect needs a tenant that can be used: leave out --wait=false and --dry-run")
	}
	if len(o.files) > 0 {
		return o.runFiles(ctx)
	}
	tenant, err := o.tenant()
	if err != nil {
		return err
	}
	if o.dryRun == "client" {
		return o.report(tenant, "would be created (dry run, the host was not asked)")
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	started := time.Now()
	created, existed, err := o.ensure(ctx, clients, tenant)
	if err != nil {
		return err
	}
	if o.dryRun == "server" {
		progress.End()
		return o.report(created, "would be created (dry run)")
	}
	if !o.wait {
		progress.End()
		if existed {
			return o.report(created, "exists already, with these settings")
		}
		return o.report(created, "is being made; see how it goes with: "+o.app.name+" describe "+o.name)
	}
	wait := &waiter{app: o.app, clients: clients, progress: progress, timeout: o.timeout}
	done, err := wait.wait(ctx, created)
	if err == nil {
		done, err = o.waitTemplates(ctx, clients, done, progress)
	}
	if err != nil {
		return interrupted(ctx, err, "tenant %q goes on being made. Run the same command again to go on waiting, or %q to give it up.", o.name, o.app.name+" delete "+o.name)
	}
	progress.End()
	took := "is ready after " + roughly(time.Since(started))
	switch {
	case existed && ready(created):
		took = "exists already and is ready"
	case existed:
		took = "exists already, and " + took
	}
	if err := o.report(done, took); err != nil {
		return err
	}
	if o.connect {
		return (&connectOptions{app: o.app, name: o.name, timeout: o.timeout}).run(ctx)
	}
	if o.output.format == "" && tenant.Spec.Type != api.Folder {
		o.printf("Go in with: %s connect %s\n", o.app.name, o.name)
	}
	return nil
}

func (o *createOptions) report(tenant *api.Tenant, what string) error {
	if o.output.format != "" {
		return o.output.object(o.Stdout, tenant)
	}
	o.printf("tenant %s %s\n", tenant.Name, what)
	return nil
}

// ensure creates the tenant, or finds that it has been created before with the
// same settings.
func (o *createOptions) ensure(ctx context.Context, clients *hostClients, tenant *api.Tenant) (_ *api.Tenant, existed bool, _ error) {
	options := metav1.CreateOptions{FieldManager: fieldOwner}
	if o.dryRun == "server" {
		options.DryRun = []string{metav1.DryRunAll}
	}
	if err := o.check(ctx, clients, tenant); err != nil {
		return nil, false, err
	}
	created, err := clients.tenants.Create(ctx, tenant, options)
	if err == nil {
		return created, false, nil
	}
	if apierrors.IsInvalid(err) {
		return nil, false, hint(fmt.Errorf("the host refuses tenant %q: %w", tenant.Name, err), "Mend what it names and run again.")
	}
	if apierrors.IsForbidden(err) {
		return nil, false, hint(fmt.Errorf("too few rights on the host (%s): %w", o.host.where(), err),
			"What is missing, and who can give it: %s can-i create %s", o.app.name, tenancy.Parent(tenant))
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, false, err
	}
	old, err := clients.tenants.Get(ctx, tenant.Name)
	if err != nil {
		return nil, false, fmt.Errorf("tenant %q exists already: %w", tenant.Name, err)
	}
	if old.DeletionTimestamp != nil {
		return nil, false, hint(fmt.Errorf("tenant %q is being deleted", tenant.Name), "Wait until it is gone (%q), then run this again.", o.app.name+" delete "+tenant.Name)
	}
	differences, err := specDifferences(old.Spec, tenant.Spec)
	if err != nil {
		return nil, false, err
	}
	if len(differences) > 0 {
		return nil, false, hint(fmt.Errorf("the name %q is taken, by a tenant with other settings:\n  %s", tenant.Name, strings.Join(differences, "\n  ")),
			"Choose another name, or use that tenant: %s connect %s. To change it: kubectl edit tenant %s.", o.app.name, tenant.Name, tenant.Name)
	}
	return old, true, nil
}

// check refuses, before anything is made, what the host could not give.
func (o *createOptions) check(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	checks := []func(context.Context, *hostClients, *api.Tenant) error{o.checkNamespace, o.checkStorageClass, o.checkParent, o.checkTemplates}
	problems := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { problems[i] = check(ctx, clients, tenant) })
	}
	wg.Wait()
	for _, problem := range problems {
		// Whoever may not look finds out from the tenant's conditions.
		if problem != nil && !apierrors.IsForbidden(problem) {
			return problem
		}
	}
	return nil
}

func (o *createOptions) checkNamespace(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	name := tenancy.HostNamespace(tenant)
	if name == "" || o.adopting {
		return nil
	}
	namespace, err := clients.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	owner := namespace.Labels[api.LabelTenant]
	switch {
	case owner == tenant.Name || offeredTo(namespace, tenant):
		return nil
	case owner != "":
		return hint(fmt.Errorf("the host namespace %q belongs to tenant %q", name, owner), "Choose another name, or another namespace with --namespace.")
	}
	err = fmt.Errorf("the host namespace %q exists already and is not a tenant's; it will not be taken over", name)
	if tenant.Spec.Type == api.Namespace {
		return hint(err, "Choose another name, or another namespace with --namespace. To make a tenant of that one, give it to it first: kubectl annotate namespace %s %s=%s.", name, api.AnnotationGiveTo, tenant.Name)
	}
	return hint(err, "Choose another name, or another namespace with --namespace.")
}

func (o *createOptions) checkStorageClass(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	vc := tenant.Spec.VirtualCluster
	if vc == nil || vc.Storage == nil || vc.Storage.Class == nil {
		return nil
	}
	class := *vc.Storage.Class
	_, err := clients.kube.StorageV1().StorageClasses().Get(ctx, class, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	err = fmt.Errorf("the host has no storage class %q", class)
	classes, listErr := clients.kube.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if listErr != nil || len(classes.Items) == 0 {
		return hint(err, "It has none at all that you can see: use --ephemeral for data that may be lost with the pod.")
	}
	var names []string
	for _, class := range classes.Items {
		names = append(names, class.Name)
	}
	return hint(err, "It has %s. Or use --ephemeral for data that may be lost with the pod.", quoteList(sorted(names), "and"))
}

func (o *createOptions) checkParent(ctx context.Context, clients *hostClients, tenant *api.Tenant) error {
	parent := tenancy.Parent(tenant)
	if parent == api.RootTenant {
		return nil
	}
	if _, err := o.get(ctx, clients, parent); errors.As(err, new(*unknownTenantError)) {
		return fmt.Errorf("the parent of tenant %q: %w", tenant.Name, err)
	}
	return nil
}

// specDifferences lists where an existing tenant's settings are other than the
// wanted ones. What was not asked for does not count when the API filled it in.
func specDifferences(old, wanted api.TenantSpec) ([]string, error) {
	before, err := tree(old)
	if err != nil {
		return nil, err
	}
	after, err := tree(wanted)
	if err != nil {
		return nil, err
	}
	return treeDifferences("spec", before, after), nil
}

func tree(spec any) (any, error) {
	content, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var t any
	return t, json.Unmarshal(content, &t)
}

func treeDifferences(path string, old, wanted any) []string {
	oldMap, oldIsMap := old.(map[string]any)
	wantedMap, wantedIsMap := wanted.(map[string]any)
	if (oldIsMap || old == nil) && (wantedIsMap || wanted == nil) && (oldIsMap || wantedIsMap) {
		keys := map[string]bool{}
		for key := range oldMap {
			keys[key] = true
		}
		for key := range wantedMap {
			keys[key] = true
		}
		var differences []string
		for _, key := range sorted(keysOf(keys)) {
			differences = append(differences, treeDifferences(path+"."+key, oldMap[key], wantedMap[key])...)
		}
		return differences
	}
	if reflect.DeepEqual(old, wanted) || sameAmount(old, wanted) {
		return nil
	}
	return []string{fmt.Sprintf("%s is %s, not %s", path, compact(old), compact(wanted))}
}

func keysOf[V any](set map[string]V) []string {
	var keys []string
	for key := range set {
		keys = append(keys, key)
	}
	return keys
}

// sameAmount takes 1000m and 1 for the same.
func sameAmount(a, b any) bool {
	left, leftOK := a.(string)
	right, rightOK := b.(string)
	if !leftOK || !rightOK {
		return false
	}
	x, errX := resource.ParseQuantity(left)
	y, errY := resource.ParseQuantity(right)
	return errX == nil && errY == nil && x.Cmp(y) == 0
}

func compact(value any) string {
	if value == nil {
		return "unset"
	}
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(content)
}
