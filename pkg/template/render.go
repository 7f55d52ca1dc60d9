package template

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Input is all that a template is filled in with.
type Input struct {
	Template *api.Template
	// Parameters are those of the reference.
	Parameters map[string]string
	Tenant     Tenant
}

// Manifests are the objects of a template's manifests, filled in, in their
// order.
func Manifests(in Input) ([]*unstructured.Unstructured, error) {
	values, err := ValuesFor(in.Template, in.Parameters)
	if err != nil {
		return nil, err
	}
	s := substitution{values: values, known: in.Tenant.lookup}
	var errs field.ErrorList
	objects := make([]*unstructured.Unstructured, 0, len(in.Template.Spec.Manifests))
	for i := range in.Template.Spec.Manifests {
		content, problems := s.manifest(&in.Template.Spec.Manifests[i], field.NewPath("spec", "manifests").Index(i))
		errs = append(errs, problems...)
		objects = append(objects, &unstructured.Unstructured{Object: content})
	}
	if len(errs) > 0 {
		return nil, wrong(in.Template, errs)
	}
	return objects, nil
}

// ChartValues are the values for a template's chart, filled in. Charts put values
// into text that is parsed afterwards, and most do not quote them: a text of
// several lines could add a field there, or an object, and some run {{ as a
// template. So a parameter has neither, unless its pattern or enum says that it
// may.
func ChartValues(in Input) (map[string]any, error) {
	values, err := ValuesFor(in.Template, in.Parameters)
	if err != nil {
		return nil, err
	}
	chart := in.Template.Spec.Chart
	if chart == nil || chart.Values == nil {
		return map[string]any{}, nil
	}
	s := substitution{values: values, known: in.Tenant.lookup, plain: func(name string) bool {
		return slices.ContainsFunc(in.Template.Spec.Parameters, func(p api.TemplateParameter) bool {
			return p.Name == name && p.Pattern == "" && len(p.Enum) == 0
		})
	}}
	filled, errs := s.object(chart.Values, field.NewPath("spec", "chart", "values"))
	if len(errs) > 0 {
		return nil, wrong(in.Template, errs)
	}
	return filled, nil
}

func wrong(t *api.Template, errs field.ErrorList) error {
	messages := make([]string, 0, len(errs))
	for _, err := range errs {
		messages = append(messages, err.Error())
	}
	return fmt.Errorf("template %q: %s", t.Name, strings.Join(messages, "; "))
}

// Revision tells apart what is rendered.
func Revision(parts ...any) (string, error) {
	content, err := canonical(parts)
	if err != nil {
		return "", fmt.Errorf("hash what a template makes: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8]), nil
}
