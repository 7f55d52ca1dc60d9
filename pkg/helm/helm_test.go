package helm_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/helm"
)

// files of a chart with everything that matters.
func files() map[string]string {
	return map[string]string{
		"Chart.yaml":                "apiVersion: v2\nname: web\nversion: 1.2.3\nkubeVersion: \">=1.30.0-0\"\n",
		"values.yaml":               "color: blue\nreplicas: 1\n",
		"values.schema.json":        `{"properties": {"replicas": {"type": "integer"}}}`,
		"crds/widgets.yaml":         "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\n",
		"templates/_helpers.tpl":    `{{ define "name" }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}`,
		"templates/NOTES.txt":       "Welcome.",
		"templates/deployment.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: {{ include \"name\" . }}, namespace: {{ .Release.Namespace }}}\nspec: {replicas: {{ .Values.replicas }}}\n",
		"templates/config.yaml": `{{ if .Capabilities.APIVersions.Has "apps/v1/Deployment" }}
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {color: {{ .Values.color | quote }}, install: "{{ .Release.IsInstall }}"}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}, data: {kube: "{{ .Capabilities.KubeVersion }}", found: "{{ lookup "v1" "Secret" "x" "y" }}"}}
{{ end }}
---
# Nothing.
`,
		"templates/hooks.yaml": `
apiVersion: batch/v1
kind: Job
metadata: {name: later, annotations: {helm.sh/hook: "post-install,post-upgrade", helm.sh/hook-weight: "5"}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: first, annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: "-5", helm.sh/hook-delete-policy: "hook-succeeded,hook-failed"}}
---
apiVersion: v1
kind: Pod
metadata: {name: test, annotations: {helm.sh/hook: test}}
---
apiVersion: v1
kind: Pod
metadata: {name: farewell, annotations: {helm.sh/hook: pre-delete}}
`,
	}
}

func with(files map[string]string, more ...string) map[string]string {
	files = maps.Clone(files)
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

// packaged is a chart as helm packages it.
func packaged(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := archive.WriteHeader(&tar.Header{Name: "web/" + name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func release() helm.Release {
	return helm.Release{Name: "shop", Namespace: "shop-ns", KubeVersion: "v1.36.3", APIVersions: []string{"v1", "apps/v1", "apps/v1/Deployment"}}
}

func TestRender(t *testing.T) {
	l := &helm.Library{}
	got, err := l.Render(t.Context(), &api.TemplateChart{Archive: packaged(t, files())}, map[string]any{"replicas": int64(3)}, release())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, object := range got.Objects {
		names = append(names, object.GetKind()+" "+object.GetName())
	}
	want := []string{"CustomResourceDefinition widgets.example.com", "ConfigMap one", "ConfigMap two", "Deployment shop-web"}
	slices.Sort(names)
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	for _, object := range got.Objects {
		data, _ := object.Object["data"].(map[string]any)
		switch object.GetName() {
		case "one":
			if diff := cmp.Diff(map[string]any{"color": "blue", "install": "true"}, data); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		case "two":
			// Nothing is looked up with the manager's rights.
			if diff := cmp.Diff(map[string]any{"kube": "v1.36.3", "found": "map[]"}, data); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		case "shop-web":
			spec, _ := object.Object["spec"].(map[string]any)
			if spec["replicas"] != int64(3) || object.GetNamespace() != "shop-ns" {
				t.Errorf("the Deployment is %v", object.Object)
			}
		}
	}
	if got.Chart != "web-1.2.3" {
		t.Errorf("the chart is %q", got.Chart)
	}
	var hooks []string
	for _, hook := range got.Hooks {
		hooks = append(hooks, fmt.Sprint(hook.Object.GetName(), hook.At, hook.DeleteSucceeded, hook.DeleteFailed))
	}
	if diff := cmp.Diff([]string{"first[pre-install] true true", "later[post-install post-upgrade] false false"}, hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	without, err := l.Render(t.Context(), &api.TemplateChart{Archive: packaged(t, files()), SkipCRDs: true}, nil, release())
	if err != nil {
		t.Fatal(err)
	}
	if len(without.Objects) != 3 {
		t.Errorf("%d objects without definitions", len(without.Objects))
	}
}

func TestRefusals(t *testing.T) {
	cases := map[string]struct {
		files  map[string]string
		values map[string]any
		says   string
	}{
		"values against the schema": {files(), map[string]any{"replicas": "many"}, "replicas"},
		"another Kubernetes":        {with(files(), "Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\nkubeVersion: \">=1.99.0\"\n"), nil, "wants Kubernetes >=1.99.0"},
		"a library":                 {with(files(), "Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\ntype: library\n"), nil, "of type application"},
		"a missing dependency":      {with(files(), "Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\ndependencies: [{name: db, version: 1.0.0, repository: https://example.com}]\n"), nil, `dependency "db"`},
		"a template that fails":     {with(files(), "templates/x.yaml", `{{ fail "color is needed" }}`), nil, "color is needed"},
		"no YAML":                   {with(files(), "templates/x.yaml", "a: b: c\n"), nil, "x.yaml"},
		"an object without kind":    {with(files(), "templates/x.yaml", "metadata: {name: x}\n"), nil, "without apiVersion or kind"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := (&helm.Library{}).Render(t.Context(), &api.TemplateChart{Archive: packaged(t, c.files)}, c.values, release())
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.As(err, new(*helm.NotFound)) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
}

// repository serves a chart in a repository with an index, and in a registry.
func repository(t *testing.T, chart []byte, start func(http.Handler) *httptest.Server) *httptest.Server {
	t.Helper()
	digest := func(content []byte) string {
		sum := sha256.Sum256(content)
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	config := []byte(`{"name": "web", "version": "1.2.3", "apiVersion": "v2"}`)
	layer := func(kind string, content []byte) map[string]any {
		return map[string]any{"mediaType": kind, "digest": digest(content), "size": len(content)}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": layer("application/vnd.cncf.helm.config.v1+json", config),
		"layers": []any{layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart)},
	})
	if err != nil {
		t.Fatal(err)
	}
	index := `apiVersion: v1
entries:
  web:
  - {version: 2.0.0, urls: [charts/other.tgz]}
  - {version: 1.2.3, urls: [charts/web.tgz], digest: ` + strings.TrimPrefix(digest(chart), "sha256:") + `}
  - {version: 0.0.1, urls: [charts/web.tgz], digest: abc}
  - {version: 0.0.2, urls: ["file:///etc/passwd"]}
`
	blobs := map[string][]byte{
		"/v2/charts/web/manifests/1.2.3":               manifest,
		"/v2/charts/web/manifests/" + digest(manifest): manifest,
		"/v2/charts/web/blobs/" + digest(config):       config,
		"/v2/charts/web/blobs/" + digest(chart):        chart,
		"/repo/index.yaml":                             []byte(index),
		"/repo/charts/web.tgz":                         chart,
		"/v2/":                                         []byte("{}"),
	}
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, there := blobs[r.URL.Path]
		if !there {
			http.NotFound(w, r)
			return
		}
		if user, password, ok := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/repo/") && (!ok || user != "ann" || password != "secret") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", digest(content))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(content)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestSources(t *testing.T) {
	chart := packaged(t, files())
	server := repository(t, chart, httptest.NewServer)
	secure := repository(t, chart, httptest.NewTLSServer)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	directory := t.TempDir()
	for name, content := range files() {
		path := filepath.Join(directory, "charts", "web", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(directory, "web.tgz"), chart, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside.tgz")
	if err := os.WriteFile(outside, chart, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(directory, "link.tgz")); err != nil {
		t.Fatal(err)
	}
	l := &helm.Library{
		Directory: filepath.Join(directory),
		ConfigMap: func(_ context.Context, name, key string) ([]byte, error) {
			if name == "web" && key == "chart.tgz" {
				return chart, nil
			}
			return nil, nil
		},
		Credentials: func(_ context.Context, secret string) (string, string, error) {
			if secret != "ann" {
				return "", "", errors.New("no such secret")
			}
			return "ann", "secret", nil
		},
	}
	repo := func(version, secret string) *api.TemplateChart {
		return &api.TemplateChart{Repository: &api.ChartRepository{URL: server.URL + "/repo", Name: "web", Version: version, SecretName: secret}}
	}
	registry := func(name, version string) *api.TemplateChart {
		return &api.TemplateChart{Repository: &api.ChartRepository{
			URL: "oci://" + strings.TrimPrefix(server.URL, "http://") + "/charts", Name: name, Version: version, PlainHTTP: true,
		}}
	}
	tls := func(url string, bundle []byte) *api.TemplateChart {
		return &api.TemplateChart{Repository: &api.ChartRepository{URL: url, Name: "web", Version: "1.2.3", SecretName: "ann", CABundle: bundle}}
	}
	secureRegistry := "oci://" + strings.TrimPrefix(secure.URL, "https://") + "/charts"
	cases := map[string]struct {
		spec *api.TemplateChart
		says string
		// final says that the chart is wrong, not away.
		final bool
	}{
		"an archive":                 {spec: &api.TemplateChart{Archive: chart}},
		"no archive":                 {spec: &api.TemplateChart{Archive: []byte("x")}, says: "helm package", final: true},
		"a ConfigMap":                {spec: &api.TemplateChart{ConfigMap: &api.ChartConfigMap{Name: "web"}}},
		"a ConfigMap without it":     {spec: &api.TemplateChart{ConfigMap: &api.ChartConfigMap{Name: "web", Key: "other"}}, says: "binaryData"},
		"a folder":                   {spec: &api.TemplateChart{Path: "charts/web"}},
		"a file":                     {spec: &api.TemplateChart{Path: "web.tgz"}},
		"no such path":               {spec: &api.TemplateChart{Path: "nothing"}, says: "nothing"},
		"a path that leads out":      {spec: &api.TemplateChart{Path: "../" + filepath.Base(filepath.Dir(outside)) + "/outside.tgz"}, says: "escapes"},
		"a link that leads out":      {spec: &api.TemplateChart{Path: "link.tgz"}, says: "escapes"},
		"a repository":               {spec: repo("1.2.3", "ann")},
		"a version that is not":      {spec: repo("9.9.9", "ann"), says: "no such version"},
		"another digest":             {spec: repo("0.0.1", "ann"), says: "digest differs"},
		"a repository of files":      {spec: repo("0.0.2", "ann"), says: "refers to file"},
		"without the password":       {spec: repo("1.2.0", ""), says: "401"},
		"without the Secret":         {spec: repo("1.2.0", "bob"), says: "no such secret"},
		"a registry":                 {spec: registry("web", "1.2.3")},
		"a chart that is not there":  {spec: registry("wob", "1.2.3"), says: "wob"},
		"a version not in registry":  {spec: registry("web", "1.2.4"), says: "1.2.4"},
		"its authority named":        {spec: tls(secure.URL+"/repo", authority)},
		"its authority not named":    {spec: tls(secure.URL+"/repo", nil), says: "certificate"},
		"no authority":               {spec: tls(secure.URL+"/repo", []byte("x")), says: "no certificate in PEM", final: true},
		"a registry with TLS":        {spec: tls(secureRegistry, authority)},
		"a registry nobody knows":    {spec: tls(secureRegistry, nil), says: "certificate"},
		"no place at all":            {spec: &api.TemplateChart{}, says: "says nowhere", final: true},
		"a repository that is not":   {spec: &api.TemplateChart{Repository: &api.ChartRepository{URL: "http://127.0.0.1:1", Name: "web", Version: "1.2.3"}}, says: "connection refused"},
		"a repository again (known)": {spec: repo("1.2.3", "ann")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := l.Render(t.Context(), c.spec, nil, release())
			if c.says == "" {
				if err != nil || got.Chart != "web-1.2.3" || len(got.Objects) != 4 {
					t.Errorf("%d objects of chart %q: %v", len(got.Objects), got.Chart, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
			if away := errors.As(err, new(*helm.NotFound)); away == c.final {
				t.Errorf("final is %v, not %v: %v", !away, c.final, err)
			}
		})
	}
	if _, err := (&helm.Library{}).Render(t.Context(), &api.TemplateChart{Path: "web"}, nil, release()); err == nil || !strings.Contains(err.Error(), "--chart-directory") {
		t.Errorf("without a folder of charts: %v", err)
	}
}

// TestRenderTwice holds that a chart that is remembered is not changed by rendering.
func TestRenderTwice(t *testing.T) {
	server := repository(t, packaged(t, files()), httptest.NewServer)
	l := &helm.Library{Credentials: func(context.Context, string) (string, string, error) { return "ann", "secret", nil }}
	spec := &api.TemplateChart{Repository: &api.ChartRepository{URL: server.URL + "/repo", Name: "web", Version: "1.2.3", SecretName: "ann"}}
	first, err := l.Render(t.Context(), spec, map[string]any{"color": "red"}, release())
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // It is known by now.
	if _, err := l.Render(t.Context(), spec, map[string]any{"color": "green"}, release()); err != nil {
		t.Fatal(err)
	}
	again, err := l.Render(t.Context(), spec, map[string]any{"color": "red"}, release())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("(-first +again):\n%s", diff)
	}
}
