package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/charts"
	"github.com/sublet-dev/sublet/pkg/version"
)

const (
	// releaseName is the name of the Helm release.
	releaseName = "sublet"
	// oldestHost is the oldest Kubernetes minor version that a host may have.
	oldestHost = 30
	// namespaceMark marks a namespace that install made, so that uninstall may
	// delete it.
	namespaceMark = api.Prefix + "made-by-install"
	fieldManager  = "sublet-install"
)

// installOptions are the flags of install.
type installOptions struct {
	*app
	namespace string
	image     string
	values    values.Options
	dryRun    bool
	wait      bool
	timeout   time.Duration
}

func newInstallCommand(a *app) *cobra.Command {
	o := &installOptions{app: a}
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put Sublet into the host cluster, or bring it up to date",
		Long: `Put Sublet into the host cluster, or bring it up to date: the Helm chart that this
program carries. Neither helm nor a chart on disk is needed. Values that were given
before stay, unless they are given anew.`,
		Example: examples(a.name, `
%[1]s install
%[1]s install --image registry.example.com/subletd:0.1.0
%[1]s install --values values.yaml --set manager.replicas=2
%[1]s install --dry-run`),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.namespace, "namespace", "n", api.SystemNamespace, "namespace of the manager")
	flags.StringVar(&o.image, "image", "", "image of subletd (default: that of this release)")
	flags.StringArrayVar(&o.values.Values, "set", nil, "value of the chart, KEY=VALUE; may be repeated")
	flags.StringArrayVar(&o.values.StringValues, "set-string", nil, "the same, never taken for a number or a boolean")
	flags.StringArrayVarP(&o.values.ValueFiles, "values", "f", nil, "file with values of the chart; may be repeated")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print what would be installed, and install nothing")
	flags.BoolVar(&o.wait, "wait", true, "wait until the manager is ready")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// loadChart loads the chart that the program carries.
func loadChart() (*chart.Chart, error) {
	root, err := charts.Sublet()
	if err != nil {
		return nil, err
	}
	var buffers []*loader.BufferedFile
	err = fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		buffers = append(buffers, &loader.BufferedFile{Name: path, Data: content})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the chart: %w", err)
	}
	loaded, err := loader.LoadFiles(buffers)
	if err != nil {
		return nil, fmt.Errorf("loading the chart: %w", err)
	}
	return loaded, nil
}

func (o *installOptions) chartValues() (map[string]any, error) {
	for _, file := range o.values.ValueFiles {
		if _, err := os.Stat(file); err != nil && file != "-" {
			return nil, usagef("--values: %v", err)
		}
	}
	merged, err := o.values.MergeValues(nil)
	if err != nil {
		return nil, &usageError{err: err}
	}
	if o.image != "" {
		setImage(merged, o.image)
	}
	return merged, nil
}

func (o *installOptions) run(ctx context.Context) error {
	chart, err := loadChart()
	if err != nil {
		return err
	}
	vals, err := o.chartValues()
	if err != nil {
		return err
	}
	if o.dryRun {
		return o.print(chart, vals)
	}
	clients, err := o.host.clients()
	if err != nil {
		return err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	progress.Step("looking at the host cluster")
	if err := checkHostVersion(clients); err != nil {
		return err
	}
	if err := o.checkRights(ctx, clients); err != nil {
		return err
	}
	progress.Step("installing the chart")
	installed, upgraded, err := o.apply(ctx, clients, chart, vals)
	if err != nil {
		return interrupted(ctx, err, "run %q again to go on", o.name+" install")
	}
	if o.wait {
		if err := o.waitManager(ctx, clients, progress, installed); err != nil {
			return interrupted(ctx, err, "the manager goes on starting. Run %q again to go on waiting.", o.name+" install")
		}
	}
	progress.End()
	verb := "installed in"
	if upgraded {
		verb = "brought up to date in"
	}
	o.printf("Sublet %s %s namespace %s.\nMake a tenant with: %s create NAME\n", chart.AppVersion(), verb, o.namespace, o.name)
	return nil
}

// print writes the manifests without asking the host.
func (o *installOptions) print(chart *chart.Chart, vals map[string]any) error {
	manifest, err := render(chart, o.namespace, vals)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.Stdout, strings.TrimSpace(manifest))
	return err
}

// render renders the chart without asking the host.
func render(chart *chart.Chart, namespace string, vals map[string]any) (string, error) {
	host, err := chartutil.ParseKubeVersion(version.Kubernetes)
	if err != nil {
		return "", err
	}
	install := action.NewInstall(&action.Configuration{Log: func(string, ...any) {}})
	install.DryRun, install.ClientOnly, install.IncludeCRDs = true, true, true
	install.ReleaseName, install.Namespace, install.KubeVersion = releaseName, namespace, host
	rendered, err := install.Run(chart, vals)
	if err != nil {
		return "", fmt.Errorf("rendering the chart: %w", err)
	}
	return rendered.Manifest, nil
}

// checkHostVersion refuses hosts that are too old.
func checkHostVersion(clients *hostClients) error {
	info, err := clients.kube.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	return checkVersion(info)
}

func checkVersion(info *apiversion.Info) error {
	// Some providers write minor versions as "31+".
	minor, err := strconv.Atoi(strings.TrimRight(info.Minor, "+"))
	if err != nil || info.Major != "1" {
		return fmt.Errorf("the host says it is Kubernetes %q, which is not a version that Sublet knows", info.GitVersion)
	}
	if minor < oldestHost {
		return hint(fmt.Errorf("the host is Kubernetes %s, and Sublet needs 1.%d or newer", info.GitVersion, oldestHost), "Bring the host up to date, or choose another with --context.")
	}
	return nil
}

// checkRights asks for what the installation needs and says all that is
// missing, so that nobody finds out one by one.
func (o *installOptions) checkRights(ctx context.Context, clients *hostClients) error {
	everything := authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"}
	if allowed, err := can(ctx, clients, everything); err != nil || allowed {
		return err
	}
	needed := []authorizationv1.ResourceAttributes{
		{Verb: "create", Resource: "namespaces"},
		{Verb: "patch", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
		{Verb: "create", Group: "scheduling.k8s.io", Resource: "priorityclasses"},
		{Verb: "create", Group: "apps", Resource: "deployments", Namespace: o.namespace},
		{Verb: "create", Resource: "secrets", Namespace: o.namespace},
		{Verb: "create", Resource: "serviceaccounts", Namespace: o.namespace},
	}
	missing := make([]string, len(needed))
	problems := make([]error, len(needed))
	var wg sync.WaitGroup
	for i, attributes := range needed {
		wg.Go(func() {
			allowed, err := can(ctx, clients, attributes)
			if problems[i] = err; err == nil && !allowed {
				missing[i] = rightText(attributes)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, func(text string) bool { return text == "" })
	if len(missing) > 0 {
		return hint(fmt.Errorf("too few rights on the host to install Sublet. Missing:\n  %s", strings.Join(missing, "\n  ")),
			"Have someone with the ClusterRole cluster-admin run this, or choose another context with --context.")
	}
	return nil
}

func can(ctx context.Context, clients *hostClients, attributes authorizationv1.ResourceAttributes) (bool, error) {
	review, err := clients.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking the host for one's rights: %w", err)
	}
	return review.Status.Allowed, nil
}

func rightText(a authorizationv1.ResourceAttributes) string {
	text := a.Verb + " " + a.Resource
	if a.Group != "" {
		text += "." + a.Group
	}
	if a.Namespace != "" {
		text += " in namespace " + a.Namespace
	}
	return text
}

// decode reads the objects of a multi-document YAML.
func decode(content []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); err != nil {
			if errors.Is(err, io.EOF) {
				return objects, nil
			}
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// helmConfig prepares Helm for the host.
func (a *app) helmConfig(namespace string) (*action.Configuration, error) {
	if err := a.host.resolve(); err != nil {
		return nil, err
	}
	config := &action.Configuration{}
	if err := config.Init(a.host.flags, namespace, "secret", func(string, ...any) {}); err != nil {
		return nil, fmt.Errorf("preparing Helm: %w", err)
	}
	return config, nil
}

// apply installs or upgrades the chart.
func (o *installOptions) apply(ctx context.Context, clients *hostClients, chart *chart.Chart, vals map[string]any) (_ *release.Release, upgraded bool, _ error) {
	if err := ensureNamespace(ctx, clients, o.namespace); err != nil {
		return nil, false, err
	}
	config, err := o.helmConfig(o.namespace)
	if err != nil {
		return nil, false, err
	}
	last, err := config.Releases.Last(releaseName)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		last = nil
	case err != nil:
		return nil, false, fmt.Errorf("reading the state of the installation: %w", err)
	case last.Info.Status.IsPending():
		// Someone was interrupted; Helm would refuse to go on.
		last.SetStatus(release.StatusFailed, "interrupted")
		if err := config.Releases.Update(last); err != nil {
			return nil, false, fmt.Errorf("going on after an interruption: %w", err)
		}
	case last.Info.Status == release.StatusUninstalling || last.Info.Status == release.StatusUninstalled:
		return nil, false, hint(errors.New("an uninstallation of Sublet has not finished"), "Finish that first: %s uninstall.", o.name)
	}
	if last == nil {
		install := action.NewInstall(config)
		install.ReleaseName, install.Namespace, install.Timeout = releaseName, o.namespace, o.timeout
		installed, err := install.RunWithContext(ctx, chart, vals)
		return installed, false, helmError(err)
	}
	upgrade := action.NewUpgrade(config)
	upgrade.Namespace, upgrade.Timeout, upgrade.MaxHistory = o.namespace, o.timeout, 5
	upgrade.ResetThenReuseValues = true
	installed, err := upgrade.RunWithContext(ctx, releaseName, chart, vals)
	return installed, true, helmError(err)
}

func helmError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("installing the chart: %w", err)
}

func ensureNamespace(ctx context.Context, clients *hostClients, name string) error {
	namespaces := clients.kube.CoreV1().Namespaces()
	existing, err := namespaces.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		// The mark is under our reserved prefix: once the chart's policies are
		// there, nobody but the manager may set it.
		existing, err = namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{namespaceMark: "true"},
		}}, metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil {
		return fmt.Errorf("making the namespace %s: %w", name, err)
	}
	if existing.DeletionTimestamp != nil {
		return hint(fmt.Errorf("the namespace %s is being deleted", name), "Wait until it is gone, then run this again.")
	}
	if owner := existing.Labels[api.LabelTenant]; owner != "" {
		return hint(fmt.Errorf("the namespace %s belongs to tenant %q", name, owner), "Choose another one with --namespace.")
	}
	return nil
}

// waitManager waits until the Deployments of the release are ready.
func (o *installOptions) waitManager(ctx context.Context, clients *hostClients, progress *progress, installed *release.Release) error {
	objects, err := decode([]byte(installed.Manifest))
	if err != nil {
		return fmt.Errorf("reading what was installed: %w", err)
	}
	deadline := time.Now().Add(o.timeout)
	for _, object := range objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		namespace := orElse(object.GetNamespace(), o.namespace)
		if err := o.waitDeployment(ctx, clients, progress, namespace, object.GetName(), deadline); err != nil {
			return err
		}
	}
	return nil
}

func (o *installOptions) waitDeployment(ctx context.Context, clients *hostClients, progress *progress, namespace, name string, deadline time.Time) error {
	for noticed := ""; ; {
		deployment, err := clients.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if rolledOut(deployment) {
			return nil
		}
		progress.Step("waiting for the manager")
		problem := deploymentProblem(ctx, clients, deployment)
		if problem != "" && problem != noticed {
			noticed = problem
			progress.Note("! %s", problem)
		}
		if time.Now().After(deadline) {
			return hint(fmt.Errorf("the manager is not ready after %s: %s", o.timeout, orElse(problem, "the host does not say why")),
				"See: kubectl get pods,events -n %s. Once that is mended it goes on by itself; run the same command again to go on waiting.", namespace)
		}
		if pause(ctx, 250*time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func rolledOut(d *appsv1.Deployment) bool {
	wanted := ptr.Deref(d.Spec.Replicas, 1)
	return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas >= wanted && d.Status.AvailableReplicas >= wanted && d.Status.Replicas == d.Status.UpdatedReplicas
}

// deploymentProblem is what stands in the way of a Deployment's pods.
func deploymentProblem(ctx context.Context, clients *hostClients, deployment *appsv1.Deployment) string {
	for _, condition := range deployment.Status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			return condition.Message
		}
	}
	pods, err := clients.kube.CoreV1().Pods(deployment.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(deployment.Spec.Selector)})
	if err != nil {
		return ""
	}
	for i := range pods.Items {
		if problem, _ := podProblem(&pods.Items[i]); problem != "" {
			return strings.ReplaceAll(problem, "the control plane", "the manager")
		}
	}
	return ""
}

// setImage sets the image as the chart's values have it: the chart joins
// repository and tag by a colon, which does for digests as well. An image
// without a tag is that of this release.
func setImage(vals map[string]any, image string) {
	repository, tag := image, ""
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
		repository, tag = image[:colon], image[colon+1:]
	}
	values, ok := vals["image"].(map[string]any)
	if !ok {
		values = map[string]any{}
	}
	values["repository"], values["tag"] = repository, tag
	vals["image"] = values
}
