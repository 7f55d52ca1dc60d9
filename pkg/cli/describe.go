package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// shownEvents is how many events describe shows.
const shownEvents = 10

func newDescribeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "describe NAME",
		Short:             "Show all about a tenant, and where to look next",
		Example:           examples(a.name, "%[1]s describe acme"),
		Args:              exactlyOneName,
		ValidArgsFunction: a.completeTenants(false),
		RunE: a.run(func(ctx context.Context, args []string) error {
			return a.describe(ctx, args[0])
		}),
	}
}

// section is one part of a description. What one may not see is left out, and
// said to be.
type section struct {
	title string
	write func(ctx context.Context, w *strings.Builder) error
}

func (a *app) describe(ctx context.Context, name string) error {
	clients, err := a.host.clients()
	if err != nil {
		return err
	}
	tenant, err := a.get(ctx, clients, name)
	if err != nil {
		return err
	}
	d := &description{app: a, clients: clients, tenant: tenant, namespace: tenancy.HostNamespace(tenant), now: time.Now()}
	sections := []section{{"", d.summary}, {"Members", d.members}, {"Limits", d.limits}, {"Templates", d.templates}, {"Conditions", d.conditions}}
	if d.namespace != "" {
		sections = append(sections, section{"Usage", d.usage})
		if tenant.Spec.Type == api.VirtualCluster {
			sections = append(sections, section{"Control plane", d.controlPlane})
		}
		sections = append(sections, section{"Host objects", d.objects}, section{"Events", d.events})
	}
	sections = append(sections, section{"Look next", d.next})
	for _, s := range sections {
		if err := d.show(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

type description struct {
	*app
	clients   *hostClients
	tenant    *api.Tenant
	namespace string
	now       time.Time
}

func (d *description) show(ctx context.Context, s section) error {
	var text strings.Builder
	err := s.write(ctx, &text)
	if apierrors.IsForbidden(err) {
		text.Reset()
		text.WriteString("(you may not see this)\n")
	} else if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if s.title == "" {
		d.printf("%s", text.String())
		return nil
	}
	body := strings.TrimRight(text.String(), "\n")
	if body == "" {
		return nil
	}
	d.printf("\n%s:\n  %s\n", s.title, strings.ReplaceAll(body, "\n", "\n  "))
	return nil
}

func (d *description) summary(_ context.Context, w *strings.Builder) error {
	t := d.tenant
	lines := [][2]string{
		{"Name", t.Name},
		{"Type", string(t.Spec.Type)},
		{"Path", orElse(t.Status.Path, "none yet, below "+orElse(tenancy.Parent(t), "nothing"))},
		{"Below", countOf(int(t.Status.Children), "tenant", "tenants")},
		{"Phase", health(t)},
		{"Namespace", orElse(d.namespace, "-")},
		{"Created", t.CreationTimestamp.UTC().Format(time.RFC3339) + " (" + age(t.CreationTimestamp, d.now) + " ago)"},
	}
	if t.Status.ExpiresAt != nil {
		lines = append(lines, [2]string{"Expires", t.Status.ExpiresAt.UTC().Format(time.RFC3339)})
	}
	if t.Spec.Type == api.VirtualCluster {
		effective := tenancy.Of(t).VirtualCluster
		lines = append(lines,
			[2]string{"Version", versionOf(t)},
			[2]string{"Endpoint", endpointOf(t)},
			[2]string{"Storage", storageText(t)})
		if len(effective.FeatureGates) > 0 {
			lines = append(lines, [2]string{"Feature gates", fmt.Sprint(effective.FeatureGates)})
		}
	}
	for _, line := range lines {
		fmt.Fprintf(w, "%-14s %s\n", line[0]+":", line[1])
	}
	return nil
}

func storageText(tenant *api.Tenant) string {
	vc := tenancy.Of(tenant).VirtualCluster
	switch {
	case vc.StorageType == api.StorageEmptyDir:
		return "with the pod (lost with it)"
	case vc.StorageClass != nil:
		return fmt.Sprintf("volume of %s, class %s", vc.StorageSize.String(), *vc.StorageClass)
	case vc.StorageType == api.StoragePVC:
		return fmt.Sprintf("volume of %s, the host's default class", vc.StorageSize.String())
	}
	return "by the host's default"
}

func (d *description) members(_ context.Context, w *strings.Builder) error {
	rows := memberRows(d.tenant)
	if len(rows) == 0 {
		return nil
	}
	return table(w, []string{"MEMBER", "ROLE", "FROM", "SCOPE"}, rows)
}

// limits are the effective ones; before the manager has looked at the tenant,
// those of its own.
func (d *description) limits(_ context.Context, w *strings.Builder) error {
	effective := d.tenant.Status.Effective
	if effective == nil {
		effective = tenancy.Of(d.tenant).Status()
	}
	var rows [][]string
	for _, limit := range effective.Limits {
		rows = append(rows, []string{limit.Name, limit.Value, fromText(limit.From, d.tenant.Name)})
	}
	return table(w, []string{"LIMIT", "VALUE", "FROM"}, rows)
}

func (d *description) templates(_ context.Context, w *strings.Builder) error {
	if d.tenant.Status.Effective == nil || len(d.tenant.Status.Effective.Templates) == 0 {
		return nil
	}
	var rows [][]string
	for _, ref := range d.tenant.Status.Effective.Templates {
		state, message := templateState(d.tenant, ref.Name)
		if d.tenant.Spec.Type == api.Folder {
			state, message = "-", "for the tenants below"
		}
		rows = append(rows, []string{ref.Name, fromText([]string{ref.From}, d.tenant.Name), strconv.FormatBool(ref.Sync), state, message})
	}
	return table(w, []string{"TEMPLATE", "FROM", "SYNC", "STATE", "MESSAGE"}, rows)
}

func (d *description) conditions(_ context.Context, w *strings.Builder) error {
	if len(d.tenant.Status.Conditions) == 0 {
		fmt.Fprintf(w, "none yet: the manager has not looked at the tenant\n")
		return nil
	}
	var rows [][]string
	for _, c := range d.tenant.Status.Conditions {
		rows = append(rows, []string{c.Type, string(c.Status), c.Reason, age(c.LastTransitionTime, d.now), c.Message})
	}
	return table(w, []string{"TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"}, rows)
}

func (d *description) usage(ctx context.Context, w *strings.Builder) error {
	quotas, err := d.clients.kube.CoreV1().ResourceQuotas(d.namespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(quotas.Items) == 0 {
		return err
	}
	var rows [][]string
	for _, quota := range quotas.Items {
		if ofControlPlane(quota) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(quota.Status.Hard)) {
			used, hard := quota.Status.Used[name], quota.Status.Hard[name]
			rows = append(rows, []string{string(name), used.String(), hard.String()})
		}
	}
	return table(w, []string{"RESOURCE", "USED", "LIMIT"}, rows)
}

// ofControlPlane tells whether a quota counts the control plane's own pod only.
func ofControlPlane(quota corev1.ResourceQuota) bool {
	scopes := quota.Spec.ScopeSelector
	return scopes != nil && slices.ContainsFunc(scopes.MatchExpressions, func(r corev1.ScopedResourceSelectorRequirement) bool {
		return r.ScopeName == corev1.ResourceQuotaScopePriorityClass &&
			r.Operator == corev1.ScopeSelectorOpIn &&
			slices.Contains(r.Values, api.ControlPlanePriorityClass)
	})
}

func (d *description) controlPlane(ctx context.Context, w *strings.Builder) error {
	pod, err := d.clients.kube.CoreV1().Pods(d.namespace).Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		fmt.Fprintf(w, "Pod %s: not there\n", api.ControlPlanePod)
		return nil
	}
	if err != nil {
		return err
	}
	restarts := int32(0)
	isReady := "not ready"
	for _, status := range pod.Status.ContainerStatuses {
		restarts += status.RestartCount
		if status.Ready {
			isReady = "ready"
		}
	}
	fmt.Fprintf(w, "Pod %s: %s, %s, %d restarts, node %s, %s old\n", pod.Name, pod.Status.Phase, isReady, restarts, orElse(pod.Spec.NodeName, "none yet"), age(pod.CreationTimestamp, d.now))
	for _, container := range pod.Spec.Containers {
		fmt.Fprintf(w, "Image: %s\n", container.Image)
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.PersistentVolumeClaim == nil {
			continue
		}
		claim, err := d.clients.kube.CoreV1().PersistentVolumeClaims(d.namespace).Get(ctx, volume.PersistentVolumeClaim.ClaimName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		size := claim.Status.Capacity[corev1.ResourceStorage]
		fmt.Fprintf(w, "Volume claim %s: %s, %s\n", claim.Name, claim.Status.Phase, size.String())
	}
	if problem, _ := podProblem(pod); problem != "" {
		fmt.Fprintf(w, "! %s\n", problem)
	}
	return nil
}

// objects counts what stands on the host for the tenant.
func (d *description) objects(ctx context.Context, w *strings.Builder) error {
	options := metav1.ListOptions{}
	if d.tenant.Spec.Type == api.VirtualCluster {
		options.LabelSelector = api.LabelComponent + "=" + api.ComponentSynced
	}
	core := d.clients.kube.CoreV1()
	counts := []struct {
		what  string
		count func() (int, error)
	}{
		{"pods", func() (int, error) { return count(core.Pods(d.namespace).List(ctx, options)) }},
		{"services", func() (int, error) { return count(core.Services(d.namespace).List(ctx, options)) }},
		{"configmaps", func() (int, error) { return count(core.ConfigMaps(d.namespace).List(ctx, options)) }},
		{"secrets", func() (int, error) { return count(core.Secrets(d.namespace).List(ctx, options)) }},
		{"persistentvolumeclaims", func() (int, error) { return count(core.PersistentVolumeClaims(d.namespace).List(ctx, options)) }},
	}
	var parts []string
	for _, c := range counts {
		n, err := c.count()
		switch {
		case apierrors.IsForbidden(err):
			parts = append(parts, c.what+" (you may not see them)")
		case err != nil:
			return err
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, c.what))
		}
	}
	fmt.Fprintln(w, strings.Join(parts, ", "))
	return nil
}

// count counts the items of a list.
func count[L interface{ *E }, E any](list L, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	switch typed := any(list).(type) {
	case *corev1.PodList:
		return len(typed.Items), nil
	case *corev1.ServiceList:
		return len(typed.Items), nil
	case *corev1.ConfigMapList:
		return len(typed.Items), nil
	case *corev1.SecretList:
		return len(typed.Items), nil
	case *corev1.PersistentVolumeClaimList:
		return len(typed.Items), nil
	}
	return 0, fmt.Errorf("cannot count %T", list)
}

func (d *description) events(ctx context.Context, w *strings.Builder) error {
	list, err := d.clients.kube.CoreV1().Events(d.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	events := list.Items
	// Events about cluster-scoped objects live in the namespace default.
	about, err := d.clients.kube.CoreV1().Events(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Tenant,involvedObject.name=" + d.tenant.Name})
	if err == nil {
		events = append(events, about.Items...)
	}
	slices.SortFunc(events, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	if len(events) > shownEvents {
		events = events[len(events)-shownEvents:]
	}
	var rows [][]string
	for _, event := range events {
		rows = append(rows, []string{
			age(metav1.NewTime(eventTime(event)), d.now), event.Type, event.Reason,
			strings.ToLower(event.InvolvedObject.Kind) + "/" + event.InvolvedObject.Name, strings.ReplaceAll(event.Message, "\n", " "),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	return table(w, []string{"AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"}, rows)
}

// next says where to look next.
func (d *description) next(_ context.Context, w *strings.Builder) error {
	t := d.tenant
	switch {
	case !noticed(t):
		fmt.Fprintf(w, "The manager: kubectl get pods -n %s\n", api.SystemNamespace)
	case t.DeletionTimestamp != nil:
		fmt.Fprintf(w, "What is left: kubectl get all -n %s\n", d.namespace)
	case ready(t) && t.Spec.Type != api.Folder:
		fmt.Fprintf(w, "Go in: %s connect %s\n", d.name, t.Name)
	case t.Spec.Type == api.VirtualCluster:
		fmt.Fprintf(w, "Log of the control plane: kubectl logs -n %s %s\n", d.namespace, api.ControlPlanePod)
	}
	return nil
}
