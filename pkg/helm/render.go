package helm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// An object with this annotation stays when its release goes, or no longer has it.
const (
	KeepAnnotation = "helm.sh/resource-policy"
	Keep           = "keep"
)

// Release is what a chart is told of where it goes.
type Release struct {
	Name, Namespace string
	// KubeVersion and APIVersions are what the API there has: v1.36.3, and apps/v1
	// and apps/v1/Deployment.
	KubeVersion string
	APIVersions []string
}

// Rendered is what a chart makes.
type Rendered struct {
	// Objects are the definitions in its folder crds and what its templates make.
	Objects []*unstructured.Unstructured
	// Hooks are what is made before or after them, by weight.
	Hooks []Hook
	// Chart is its name and version: "web-1.2.3".
	Chart string
}

// Moment is when a hook runs.
type Moment string

// The moments that are known; hooks of other moments are left out.
const (
	PreInstall  Moment = Moment(release.HookPreInstall)
	PostInstall Moment = Moment(release.HookPostInstall)
	PreUpgrade  Moment = Moment(release.HookPreUpgrade)
	PostUpgrade Moment = Moment(release.HookPostUpgrade)
)

// Hook is an object that is made at certain moments, and not kept in force.
type Hook struct {
	Object *unstructured.Unstructured
	At     []Moment
	// DeleteSucceeded and DeleteFailed say that it goes when it is done.
	DeleteSucceeded, DeleteFailed bool
}

// render renders a chart. Each time counts as an installation, so that the same
// always comes out the same.
func render(files []*loader.BufferedFile, values map[string]any, r Release, skipCRDs bool) (Rendered, error) {
	// What follows changes the chart, so each time needs one of its own.
	c, err := loader.LoadFiles(files)
	if err != nil {
		return Rendered{}, fmt.Errorf("load the chart: %w", err)
	}
	name := c.Metadata.Name + "-" + c.Metadata.Version
	wrap := func(err error) (Rendered, error) { return Rendered{}, fmt.Errorf("chart %s: %w", name, err) }
	if kind := c.Metadata.Type; kind != "" && kind != "application" {
		return wrap(fmt.Errorf("it is of type %q, which makes nothing: name a chart of type application", kind))
	}
	if err := missingDependencies(c); err != nil {
		return wrap(err)
	}
	capabilities, err := capabilitiesOf(r)
	if err != nil {
		return wrap(err)
	}
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, capabilities.KubeVersion.String()) {
		return wrap(fmt.Errorf("it wants Kubernetes %s, and this is %s", want, capabilities.KubeVersion.String()))
	}
	if err := chartutil.ProcessDependenciesWithMerge(c, values); err != nil {
		return wrap(err)
	}
	options := chartutil.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, Revision: 1, IsInstall: true}
	top, err := chartutil.ToRenderValues(c, values, options, capabilities)
	if err != nil {
		return wrap(err)
	}
	texts, err := engine.Render(c, top)
	if err != nil {
		return wrap(err)
	}
	for file := range texts {
		if strings.HasSuffix(file, "NOTES.txt") {
			delete(texts, file)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(texts, capabilities.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return wrap(err)
	}
	out := Rendered{Chart: name}
	if !skipCRDs {
		for _, crd := range c.CRDObjects() {
			if out.Objects, err = appendObjects(out.Objects, crd.Filename, string(crd.File.Data)); err != nil {
				return wrap(err)
			}
		}
	}
	for _, manifest := range manifests {
		if out.Objects, err = appendObjects(out.Objects, manifest.Name, manifest.Content); err != nil {
			return wrap(err)
		}
	}
	slices.SortStableFunc(hooks, func(a, b *release.Hook) int { return a.Weight - b.Weight })
	for _, hook := range hooks {
		if out.Hooks, err = appendHook(out.Hooks, hook); err != nil {
			return wrap(err)
		}
	}
	return out, nil
}

func missingDependencies(c *chart.Chart) error {
	have := map[string]bool{}
	for _, dependency := range c.Dependencies() {
		have[dependency.Name()] = true
	}
	for _, dependency := range c.Metadata.Dependencies {
		if !have[dependency.Name] {
			return fmt.Errorf("its dependency %q is not in it: package it with \"helm package --dependency-update\"", dependency.Name)
		}
	}
	return nil
}

func capabilitiesOf(r Release) (*chartutil.Capabilities, error) {
	capabilities := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(r.KubeVersion)
	if err != nil {
		return nil, fmt.Errorf("read the version of Kubernetes %q: %w", r.KubeVersion, err)
	}
	capabilities.KubeVersion = *version
	capabilities.APIVersions = r.APIVersions
	return capabilities, nil
}

// appendObjects reads the objects of a text, those of lists each by itself.
func appendObjects(objects []*unstructured.Unstructured, file, text string) ([]*unstructured.Unstructured, error) {
	documents := releaseutil.SplitManifests(text)
	keys := make([]string, 0, len(documents))
	for key := range documents {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if releaseutil.BySplitManifestsOrder([]string{a, b}).Less(0, 1) {
			return -1
		}
		return 1
	})
	for _, key := range keys {
		content, err := yaml.YAMLToJSON([]byte(documents[key]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if content = bytes.TrimSpace(content); len(content) == 0 || bytes.Equal(content, []byte("null")) {
			continue
		}
		object := &unstructured.Unstructured{}
		if err := utiljson.Unmarshal(content, &object.Object); err != nil {
			return nil, fmt.Errorf("%s: it makes something that is no object", file)
		}
		if object.GetKind() == "" || object.GetAPIVersion() == "" {
			return nil, fmt.Errorf("%s: it makes an object without apiVersion or kind", file)
		}
		if !object.IsList() {
			objects = append(objects, object)
			continue
		}
		err = object.EachListItem(func(item runtime.Object) error {
			if entry, ok := item.(*unstructured.Unstructured); ok {
				objects = append(objects, entry)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return objects, nil
}

func appendHook(hooks []Hook, from *release.Hook) ([]Hook, error) {
	var at []Moment
	for _, event := range from.Events {
		if moment := Moment(event); slices.Contains([]Moment{PreInstall, PostInstall, PreUpgrade, PostUpgrade}, moment) {
			at = append(at, moment)
		}
	}
	if len(at) == 0 {
		return hooks, nil
	}
	objects, err := appendObjects(nil, from.Path, from.Manifest)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		hooks = append(hooks, Hook{
			Object:          object,
			At:              at,
			DeleteSucceeded: slices.Contains(from.DeletePolicies, release.HookSucceeded),
			DeleteFailed:    slices.Contains(from.DeletePolicies, release.HookFailed),
		})
	}
	return hooks, nil
}
