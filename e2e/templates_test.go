//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// site is a chart that does something before and after it is installed.
func site() map[string]string {
	hook := func(name, at, script string) string {
		return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-%s
  annotations: {helm.sh/hook: "%s", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: hook
        image: %s
        command: [sh, -c, %q]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, name, at, agnhost(), script)
	}
	return map[string]string{
		"Chart.yaml":             "apiVersion: v2\nname: site\nversion: 1.0.0\n",
		"values.yaml":            "greeting: hello\n",
		"templates/prepare.yaml": hook("prepare", "pre-install,pre-upgrade", `sleep 2; test {{ .Values.greeting }} != fail`),
		"templates/settings.yaml": `
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-settings}
data: {greeting: {{ .Values.greeting }}, namespace: {{ .Release.Namespace }}}
`,
		"templates/web.yaml": fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: %s
        args: [netexec, --http-port=8080]
        envFrom: [{configMapRef: {name: {{ .Release.Name }}-settings}}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, agnhost()),
		// What comes after sees what was made.
		"templates/announce.yaml": strings.Replace(hook("announce", "post-install", `test "$GREETING" = hello`),
			"        command:", "        env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: {{ .Release.Name }}-settings, key: greeting}}}]\n        command:", 1),
	}
}

// packaged is a chart as "helm package" makes it.
func packaged(t *testing.T, name string, files map[string]string) []byte {
	t.Helper()
	var content bytes.Buffer
	zipped := gzip.NewWriter(&content)
	archive := tar.NewWriter(zipped)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name + "/" + file, Mode: 0o644, Size: int64(len(files[file]))}
		err := archive.WriteHeader(header)
		if err == nil {
			_, err = archive.Write([]byte(files[file]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return content.Bytes()
}

// refer has a tenant refer to a template as a tool does that owns nothing else of
// it; without parameters it no longer does.
func (s *suite) refer(ctx context.Context, tenant *api.Tenant, template string, parameters map[string]any) error {
	spec := map[string]any{"type": string(tenant.Spec.Type)}
	if parameters != nil {
		spec["templates"] = []any{map[string]any{"name": template, "sync": true, "parameters": parameters}}
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(api.GroupVersion.WithKind("Tenant"))
	u.SetName(tenant.Name)
	return s.objects.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("e2e-"+template))
}

// entry waits until a template in a tenant is in a state.
func (s *suite) entry(t *testing.T, tenant, template string, state api.TemplateState, is func(api.AppliedTemplate) bool) api.AppliedTemplate {
	t.Helper()
	var found api.AppliedTemplate
	eventually(t, 2*time.Minute, fmt.Sprintf("template %s in tenant %s is %s", template, tenant, state), func() error {
		var object api.Tenant
		if err := s.objects.Get(t.Context(), namespacedName("", tenant), &object); err != nil {
			return err
		}
		at := slices.IndexFunc(object.Status.Templates, func(e api.AppliedTemplate) bool { return e.Name == template })
		if at < 0 {
			return fmt.Errorf("no entry; conditions are %+v", object.Status.Conditions)
		}
		found = object.Status.Templates[at]
		if found.State != state || is != nil && !is(found) {
			return fmt.Errorf("it is %+v", found)
		}
		return nil
	})
	return found
}

// TestTemplates applies a chart with hooks in a namespace and inside of a virtual
// cluster, where the hooks are Jobs that really run.
func TestTemplates(t *testing.T) {
	s := shared(t)
	const name = "e2e-site"
	template := &api.Template{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: api.TemplateSpec{
			Namespace:  name,
			Parameters: []api.TemplateParameter{{Name: "greeting", Required: true, Enum: []string{"hello", "bye", "fail"}}},
			Chart:      &api.TemplateChart{Archive: packaged(t, "site", site()), ReleaseName: "site", Values: &runtime.RawExtension{Raw: []byte(`{"greeting": "${greeting}"}`)}},
		},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := client.IgnoreNotFound(s.objects.Delete(ctx, template)); err != nil {
			t.Errorf("delete template %s: %v", name, err)
		}
	})
	if err := s.objects.Create(t.Context(), template); err != nil {
		t.Fatal(err)
	}
	t.Run("Namespace", func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { s.cleanUp(t, "e2e-sited") })
		s.mustSublet(t, "create", "e2e-sited", "--type", "Namespace")
		s.testChart(t, s.host, "e2e-sited", "e2e-sited", name)
	})
	t.Run("VirtualCluster", func(t *testing.T) {
		t.Parallel()
		tn := s.sharedTenant(t, "e2e-green")
		s.testChart(t, tn.cluster, tn.name, name, name)
		// The host has nothing of it that has not crossed as everything does.
		jobs, err := s.host.BatchV1().Jobs(tn.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(jobs.Items) > 0 {
			t.Errorf("%d Jobs on the host: %v", len(jobs.Items), err)
		}
		if err := tn.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// testChart has a tenant refer to the template, and looks at what comes of it in
// one of its namespaces.
func (s *suite) testChart(t *testing.T, c kubernetes.Interface, tenant, namespace, template string) {
	t.Helper()
	var object api.Tenant
	if err := s.objects.Get(t.Context(), namespacedName("", tenant), &object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := client.IgnoreNotFound(s.refer(ctx, &object, template, nil)); err != nil {
			t.Errorf("take template %s from tenant %s: %v", template, tenant, err)
		}
	})
	refer := func(greeting string) {
		t.Helper()
		if err := s.refer(t.Context(), &object, template, map[string]any{"greeting": greeting}); err != nil {
			t.Fatal(err)
		}
	}
	job := func(name string) *batchv1.Job {
		t.Helper()
		job, err := c.BatchV1().Jobs(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	greeting := func() string {
		t.Helper()
		settings, err := c.CoreV1().ConfigMaps(namespace).Get(t.Context(), "site-settings", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return settings.Data["greeting"]
	}
	refer("hello")
	first := s.entry(t, tenant, template, api.TemplateApplied, nil)
	if first.Chart != "site-1.0.0" {
		t.Errorf("the chart is %q", first.Chart)
	}
	settings, err := c.CoreV1().ConfigMaps(namespace).Get(t.Context(), "site-settings", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	prepare, announce := job("site-prepare"), job("site-announce")
	// A Job is done when its pod was, and the rest was made after that.
	switch {
	case prepare.Status.Succeeded != 1 || prepare.Status.CompletionTime == nil || announce.Status.Succeeded != 1:
		t.Fatalf("the hooks are %+v, %+v", prepare.Status, announce.Status)
	case settings.CreationTimestamp.Time.Before(prepare.Status.CompletionTime.Time):
		t.Errorf("the chart was installed at %v, before its hook was done at %v", settings.CreationTimestamp, prepare.Status.CompletionTime)
	case settings.CreationTimestamp.Sub(prepare.CreationTimestamp.Time) < 2*time.Second:
		t.Error("the hook was not waited for")
	case announce.CreationTimestamp.Time.Before(settings.CreationTimestamp.Time):
		t.Error("the hook that comes after came before")
	}
	if settings.Data["greeting"] != "hello" {
		t.Errorf("the settings are %v", settings.Data)
	}
	pods := func() []corev1.Pod {
		t.Helper()
		list, err := c.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	eventually(t, time.Minute, "the web is ready", func() error {
		for _, pod := range pods() {
			if podReady(&pod) {
				return nil
			}
		}
		return errors.New("no pod is")
	})

	// An upgrade runs what comes before it once more.
	refer("bye")
	s.entry(t, tenant, template, api.TemplateApplied, func(e api.AppliedTemplate) bool { return e.Revision != first.Revision })
	if again := job("site-prepare"); again.UID == prepare.UID || again.Status.Succeeded != 1 {
		t.Errorf("the hook did not run once more: %+v", again.Status)
	}
	if job("site-announce").UID != announce.UID {
		t.Error("the hook after an installation ran after an upgrade")
	}
	if got := greeting(); got != "bye" {
		t.Errorf("after the upgrade the greeting is %q", got)
	}
	// One that fails holds the upgrade up, and says so.
	refer("fail")
	failed := s.entry(t, tenant, template, api.TemplateFailed, nil)
	if failed.Reason != "HookFailed" || !strings.Contains(failed.Message, "site-prepare") {
		t.Errorf("the entry is %+v", failed)
	}
	if got := greeting(); got != "bye" {
		t.Errorf("the upgrade went on with %q", got)
	}
	// Back to what was, and drift is put right.
	refer("bye")
	s.entry(t, tenant, template, api.TemplateApplied, nil)
	patch := []byte(`{"data":{"greeting":"changed"}}`)
	if _, err := c.CoreV1().ConfigMaps(namespace).Patch(t.Context(), "site-settings", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the greeting is put right", func() error {
		if got := greeting(); got != "bye" {
			return errors.New(got)
		}
		return nil
	})
	// And all of it goes with the reference.
	if err := s.refer(t.Context(), &object, template, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the chart is gone", func() error {
		_, err := c.CoreV1().ConfigMaps(namespace).Get(t.Context(), "site-settings", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the settings: %v", err)
		}
		_, err = c.AppsV1().Deployments(namespace).Get(t.Context(), "site-web", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the web: %v", err)
		}
		return nil
	})
}
