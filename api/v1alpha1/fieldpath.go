package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// FieldPath leads to fields of a custom resource: ".spec.tls[*].secretName".
//
// +kubebuilder:object:generate=false
type FieldPath []FieldStep

// FieldStep is one field of a FieldPath.
//
// +kubebuilder:object:generate=false
type FieldStep struct {
	Name string
	// Each leads to every element of the list that the field holds.
	Each bool
}

// String is the path as it is written.
func (p FieldPath) String() string {
	var b strings.Builder
	for _, step := range p {
		b.WriteString("." + step.Name)
		if step.Each {
			b.WriteString("[*]")
		}
	}
	return b.String()
}

// Beside tells whether other leads to a field of the same object as p does.
func (p FieldPath) Beside(other FieldPath) bool {
	return len(p) == len(other) && len(p) > 0 && slices.Equal(p[:len(p)-1], other[:len(p)-1])
}

// ParseFieldPath reads a path. It leads into what a user says of an object: not
// into metadata and status.
func ParseFieldPath(text string) (FieldPath, error) {
	const form = `must be a path such as ".spec.secretName" or ".spec.tls[*].secretName"`
	if !strings.HasPrefix(text, ".") {
		return nil, fmt.Errorf("%q %s: it begins with a dot", text, form)
	}
	var path FieldPath
	name := regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	for part := range strings.SplitSeq(text[1:], ".") {
		field, each := strings.CutSuffix(part, "[*]")
		if !name.MatchString(field) {
			return nil, fmt.Errorf("%q %s: %q is no name of a field", text, form, part)
		}
		path = append(path, FieldStep{Name: field, Each: each})
	}
	switch path[0].Name {
	case "apiVersion", "kind", "metadata", "status":
		return nil, fmt.Errorf("%q must not lead into .%s: that is translated anyway", text, path[0].Name)
	}
	return path, nil
}
