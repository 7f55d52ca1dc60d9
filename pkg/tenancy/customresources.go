package tenancy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// validateCustomResources names all that is wrong with a list of custom
// resources, paths into their objects included.
func validateCustomResources(resources []api.CustomResource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range resources {
		at := path.Index(i)
		errs = append(errs, validateResourceNames(r, at)...)
		if kind := r.Kind + "." + r.Group; seen[kind] {
			errs = append(errs, field.Duplicate(at, kind))
		} else {
			seen[kind] = true
		}
		for j, reference := range r.References {
			errs = append(errs, validateReference(reference, at.Child("references").Index(j))...)
		}
		for name, paths := range map[string][]string{
			"selectorPaths": r.SelectorPaths, "labelPaths": r.LabelPaths, "namespacePaths": r.NamespacePaths,
			"verbatimPaths": r.VerbatimPaths, "hostPaths": r.HostPaths,
		} {
			for j, text := range paths {
				if _, err := api.ParseFieldPath(text); err != nil {
					errs = append(errs, field.Invalid(at.Child(name).Index(j), text, err.Error()))
				}
			}
		}
	}
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
	return errs
}

func validateResourceNames(r api.CustomResource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch messages := validation.IsDNS1123Subdomain(r.Group); {
	case len(messages) > 0:
		errs = append(errs, field.Invalid(at.Child("group"), r.Group, messages[0]))
	case builtIn(r.Group):
		errs = append(errs, field.Invalid(at.Child("group"), r.Group, "is no group of custom resources: what crosses of Kubernetes' own kinds is not chosen here"))
	case handled(r):
		errs = append(errs, field.Invalid(at.Child("resource"), r.Resource, "crosses anyway, as far as the other limits let it: leave it out"))
	}
	for name, text := range map[string]string{"version": r.Version, "resource": r.Resource} {
		if messages := validation.IsDNS1035Label(text); len(messages) > 0 {
			errs = append(errs, field.Invalid(at.Child(name), text, messages[0]))
		}
	}
	if !regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`).MatchString(r.Kind) {
		errs = append(errs, field.Invalid(at.Child("kind"), r.Kind, `must be a kind such as "Certificate"`))
	}
	return errs
}

func validateReference(r api.CustomReference, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	path, err := api.ParseFieldPath(r.Path)
	if err != nil {
		errs = append(errs, field.Invalid(at.Child("path"), r.Path, err.Error()))
	}
	if r.KindPath != "" {
		beside, kindErr := api.ParseFieldPath(r.KindPath)
		switch {
		case kindErr != nil:
			errs = append(errs, field.Invalid(at.Child("kindPath"), r.KindPath, kindErr.Error()))
		case err == nil && (!path.Beside(beside) || beside[len(beside)-1].Each):
			errs = append(errs, field.Invalid(at.Child("kindPath"), r.KindPath, fmt.Sprintf("must be a field of the same object as %q", r.Path)))
		}
	}
	if made := r.Group == "" && (r.Kind == "Secret" || r.Kind == "ConfigMap"); r.From == api.FromHost && !made {
		errs = append(errs, field.Invalid(at.Child("kind"), r.Kind, "only Secrets and ConfigMaps are brought from the host"))
	}
	return errs
}

// builtIn tells groups of Kubernetes itself, and Sublet's. The chart's policy
// sublet-manager-roles has the same list.
func builtIn(group string) bool {
	if !strings.Contains(group, ".") {
		return true // apps, batch and so on.
	}
	return slices.Contains([]string{
		api.GroupName, "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io",
		"authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io",
		"flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "metrics.k8s.io", "networking.k8s.io", "node.k8s.io",
		"rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io",
	}, group)
}

// handled tells the custom resources that cross by themselves.
func handled(r api.CustomResource) bool {
	return slices.Contains([]string{
		"httproutes.gateway.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io", "volumesnapshotclasses.snapshot.storage.k8s.io",
	}, r.Resource+"."+r.Group)
}
