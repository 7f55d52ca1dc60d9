package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// YAML writes the result as documents, the templates first, then the tenants from
// the root downwards. The notes stand as comments above what they concern.
func (r *Result) YAML() ([]byte, error) {
	objects, err := r.objects()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var left []Note
	written := map[string]bool{}
	for _, object := range objects {
		written[object.GetKind()+"/"+object.GetName()] = true
	}
	for _, note := range r.Notes {
		if !written[note.Of] {
			left = append(left, note)
		}
	}
	if len(left) > 0 {
		out.WriteString("# Not part of what follows:\n")
		comment(&out, left)
	}
	for _, object := range objects {
		if out.Len() > 0 {
			out.WriteString("---\n")
		}
		var notes []Note
		for _, note := range r.Notes {
			if note.Of == object.GetKind()+"/"+object.GetName() {
				notes = append(notes, note)
			}
		}
		comment(&out, notes)
		content, err := yaml.Marshal(object.Object)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", describe(object), err)
		}
		out.Write(content)
	}
	r.offers(&out)
	return out.Bytes(), nil
}

// offers tells how the namespaces that there are become the tenants'.
func (r *Result) offers(out *bytes.Buffer) {
	first := true
	for _, tenant := range r.Tenants {
		namespace := tenancy.HostNamespace(tenant)
		if namespace == "" {
			continue
		}
		if first {
			out.WriteString("# Whoever may change the namespaces gives those that there are to their tenants, before\n# these are made:\n")
			first = false
		}
		fmt.Fprintf(out, "#   kubectl annotate namespace %s %s=%s\n", namespace, api.AnnotationGiveTo, tenant.Name)
	}
}

func comment(out *bytes.Buffer, notes []Note) {
	for _, note := range notes {
		for i, line := range bytes.Split([]byte(note.String()), []byte("\n")) {
			prefix := "# - "
			if i > 0 {
				prefix = "#   "
			}
			out.WriteString(prefix)
			out.Write(bytes.ReplaceAll(line, []byte("\r"), nil))
			out.WriteByte('\n')
		}
	}
}

// JSON writes the result as one List, without the notes.
func (r *Result) JSON() ([]byte, error) {
	objects, err := r.objects()
	if err != nil {
		return nil, err
	}
	items := make([]any, 0, len(objects))
	for _, object := range objects {
		items = append(items, object.Object)
	}
	content, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, "", "    ")
	return append(content, '\n'), err
}

// objects are the templates and tenants with what a person would write of them.
func (r *Result) objects() ([]*unstructured.Unstructured, error) {
	var all []runtime.Object
	for _, template := range r.Templates {
		all = append(all, template)
	}
	for _, tenant := range r.Tenants {
		all = append(all, tenant)
	}
	objects := make([]*unstructured.Unstructured, 0, len(all))
	for _, object := range all {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return nil, fmt.Errorf("write %T: %w", object, err)
		}
		u := &unstructured.Unstructured{Object: fields}
		unstructured.RemoveNestedField(u.Object, "status")
		unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
		objects = append(objects, u)
	}
	return objects, nil
}
