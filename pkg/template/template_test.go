package template_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/template"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// namespaced knows some kinds.
func namespaced(kind schema.GroupVersionKind) (bool, error) {
	switch kind.Kind {
	case "ConfigMap", "Deployment", "RoleBinding", "Secret", "Service":
		return true, nil
	case "ClusterRole", "Namespace":
		return false, nil
	}
	return false, &template.UnknownKind{Kind: kind}
}

// TestGolden fills in the templates of the golden files. Each has template.yaml
// and reference.yaml, perhaps tenant.yaml, and what comes out: for a Namespace
// tenant in host.yaml, in a virtual cluster in virtual.yaml, and the values of the
// chart in values.yaml.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			content := map[string][]byte{}
			var inputs []txtar.File
			for _, f := range archive.Files {
				content[f.Name] = f.Data
				if slices.Contains([]string{"template.yaml", "reference.yaml", "tenant.yaml"}, f.Name) {
					inputs = append(inputs, f)
				}
			}
			in := template.Input{Template: &api.Template{}, Tenant: template.TenantOf(tenant())}
			ref := api.TemplateRef{}
			for name, into := range map[string]any{"template.yaml": in.Template, "reference.yaml": &ref} {
				if err := yaml.UnmarshalStrict(content[name], into); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if raw, ok := content["tenant.yaml"]; ok {
				other := tenant()
				if err := yaml.UnmarshalStrict(raw, other); err != nil {
					t.Fatal(err)
				}
				in.Tenant = template.TenantOf(other)
			}
			in.Parameters = ref.Parameters
			got := []txtar.File{{Name: "host.yaml", Data: rendered(in, "shop", true)}, {Name: "virtual.yaml", Data: rendered(in, "default", false)}}
			if in.Template.Spec.Chart != nil {
				got = append(got, txtar.File{Name: "values.yaml", Data: values(in)})
			}
			if errs := template.Validate(in.Template); len(errs) > 0 {
				got = append(got, txtar.File{Name: "invalid.txt", Data: []byte(errs.ToAggregate().Error() + "\n")})
			}
			if *update {
				archive.Files = append(inputs, got...)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := archive.Files[len(inputs):]
			if diff := cmp.Diff(asMap(want), asMap(got)); diff != "" {
				t.Errorf("(-want +got); run with -update if that is meant:\n%s", diff)
			}
		})
	}
}

func asMap(files []txtar.File) map[string]string {
	content := map[string]string{}
	for _, f := range files {
		content[f.Name] = string(f.Data)
	}
	return content
}

func rendered(in template.Input, namespace string, only bool) []byte {
	objects, err := template.Manifests(in)
	if err == nil {
		err = template.Place{Namespace: namespace, Only: only, Namespaced: namespaced}.Into(in.Template.Name, objects)
	}
	if err != nil {
		return []byte("error: " + err.Error() + "\n")
	}
	template.Sort(objects)
	var out strings.Builder
	for _, object := range objects {
		content, err := yaml.Marshal(object)
		if err != nil {
			return []byte(err.Error())
		}
		out.WriteString("---\n" + string(content))
	}
	return []byte(out.String())
}

func values(in template.Input) []byte {
	values, err := template.ChartValues(in)
	if err != nil {
		return []byte("error: " + err.Error() + "\n")
	}
	content, err := yaml.Marshal(values)
	if err != nil {
		return []byte(err.Error())
	}
	return content
}

func tenant() *api.Tenant {
	return &api.Tenant{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "red", "example.com/cost": "42"}},
		Spec:       api.TenantSpec{Type: api.Namespace, Parent: "team1"},
		Status: api.TenantStatus{
			Path: "root/company/team1/shop", Namespace: "shop",
			Effective: &api.EffectiveStatus{Members: []api.EffectiveMember{
				{Kind: "User", Name: "lead", Role: api.RoleAdmin, From: "team1"},
				{Kind: "Group", Name: "devs", Role: api.RoleEdit, From: "team1"},
				{Kind: "ServiceAccount", Namespace: "ci", Name: "bot", Role: api.RoleEdit, From: "shop"},
				{Kind: "Group", Name: "devs", Role: api.RoleView, From: "shop"},
			}},
		},
	}
}

func TestValues(t *testing.T) {
	declared := func(p api.TemplateParameter) *api.Template {
		p.Name = "p"
		tmpl := &api.Template{Spec: api.TemplateSpec{Parameters: []api.TemplateParameter{p}}}
		tmpl.Name = "tmpl"
		return tmpl
	}
	text := func(s string) *string { return &s }
	cases := map[string]struct {
		parameter api.TemplateParameter
		given     *string
		want      any
		err       string
	}{
		"text":                       {given: text("3"), want: "3"},
		"text of several lines":      {given: text("a\nb"), want: "a\nb"},
		"empty text":                 {given: text(""), want: ""},
		"text not given":             {want: ""},
		"a default":                  {parameter: api.TemplateParameter{Default: "x"}, want: "x"},
		"empty against a default":    {parameter: api.TemplateParameter{Default: "x"}, given: text(""), want: ""},
		"required":                   {parameter: api.TemplateParameter{Required: true, Description: "a colour"}, err: "a colour"},
		"required and empty":         {parameter: api.TemplateParameter{Required: true}, given: text(""), want: ""},
		"whole number":               {parameter: api.TemplateParameter{Type: api.ParameterInteger}, given: text("-3"), want: int64(-3)},
		"no whole number":            {parameter: api.TemplateParameter{Type: api.ParameterInteger}, given: text("3.5"), err: "whole number"},
		"too large a number":         {parameter: api.TemplateParameter{Type: api.ParameterInteger}, given: text("99999999999999999999"), err: "whole number"},
		"whole number not given":     {parameter: api.TemplateParameter{Type: api.ParameterInteger}, want: int64(0)},
		"number":                     {parameter: api.TemplateParameter{Type: api.ParameterNumber}, given: text("0.5"), want: 0.5},
		"no number":                  {parameter: api.TemplateParameter{Type: api.ParameterNumber}, given: text("NaN"), err: "no number"},
		"infinite":                   {parameter: api.TemplateParameter{Type: api.ParameterNumber}, given: text("Inf"), err: "no number"},
		"true":                       {parameter: api.TemplateParameter{Type: api.ParameterBoolean}, given: text("true"), want: true},
		"yes is not true":            {parameter: api.TemplateParameter{Type: api.ParameterBoolean}, given: text("yes"), err: "neither true nor false"},
		"list":                       {parameter: api.TemplateParameter{Type: api.ParameterList}, given: text("a, b"), want: []any{"a", "b"}},
		"list as JSON":               {parameter: api.TemplateParameter{Type: api.ParameterList}, given: text(`["a,b", "c"]`), want: []any{"a,b", "c"}},
		"list of objects":            {parameter: api.TemplateParameter{Type: api.ParameterList}, given: text(`[{"a": 1}]`), err: "no list"},
		"empty list":                 {parameter: api.TemplateParameter{Type: api.ParameterList}, given: text(""), want: []any{}},
		"pattern":                    {parameter: api.TemplateParameter{Pattern: "[a-z]+"}, given: text("abc"), want: "abc"},
		"pattern of the whole":       {parameter: api.TemplateParameter{Pattern: "[a-z]+"}, given: text("abc1"), err: "does not match"},
		"pattern and a line break":   {parameter: api.TemplateParameter{Pattern: "[a-z]+"}, given: text("abc\n"), err: "does not match"},
		"alternatives are bracketed": {parameter: api.TemplateParameter{Pattern: "a|b"}, given: text("ax"), err: "does not match"},
		"pattern of each entry":      {parameter: api.TemplateParameter{Type: api.ParameterList, Pattern: "[a-z]"}, given: text("a,1"), err: `"1" does not match`},
		"pattern that is none":       {parameter: api.TemplateParameter{Pattern: "("}, given: text("a"), err: "must be corrected"},
		"pattern that breaks out":    {parameter: api.TemplateParameter{Pattern: "a)|(b"}, given: text("bx"), err: "must be corrected"},
		"one of":                     {parameter: api.TemplateParameter{Enum: []string{"s", "m"}}, given: text("m"), want: "m"},
		"none of":                    {parameter: api.TemplateParameter{Enum: []string{"s", "m"}}, given: text("l"), err: "none of s, m"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			given := map[string]string{}
			if c.given != nil {
				given["p"] = *c.given
			}
			values, err := template.ValuesFor(declared(c.parameter), given)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), `"tmpl"`) || !strings.Contains(err.Error(), `"p"`) {
					t.Fatalf("error %v does not say %q, the template and the parameter", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, values["p"]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	_, err := template.ValuesFor(declared(api.TemplateParameter{Required: true}), map[string]string{"q": "x"})
	if err == nil || !strings.Contains(err.Error(), `"p" is required`) || !strings.Contains(err.Error(), `no parameter "q"`) {
		t.Errorf("not everything is named at once: %v", err)
	}
}

// TestUnknownKinds are told apart from mistakes: they may come.
func TestUnknownKinds(t *testing.T) {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}}}
	err := template.Place{Namespace: "shop", Namespaced: namespaced}.Into("tmpl", []*unstructured.Unstructured{object})
	var unknown *template.UnknownKind
	if !errors.As(err, &unknown) || unknown.Kind.Kind != "Widget" {
		t.Errorf("error is %v", err)
	}
}

// shape is an object without its texts: kinds, keys, lengths of lists, and which
// values are no texts.
func shape(value any) any {
	switch value := value.(type) {
	case map[string]any:
		s := map[string]any{}
		for key, entry := range value {
			s[key] = shape(entry)
		}
		return s
	case []any:
		s := make([]any, 0, len(value))
		for _, entry := range value {
			s = append(s, shape(entry))
		}
		return s
	case string:
		return ""
	}
	return value
}

// FuzzStructure holds that no value, whatever is in it, changes anything but the
// value that it stands in.
func FuzzStructure(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "${other}", "$${other}", "}", "${", "a\n---\napiVersion: v1\nkind: Secret", `"}, "kind": "Secret"`,
		"{{ .Values.x }}", "x: y", "\x00", "\u2028", "- a\n- b", "*a", "&a b", "!!binary x", "null", "true", "3", strings.Repeat("x", 5000), "${tenant.name}",
		"ünï", "\xff\xfe",
	} {
		f.Add(seed, seed)
	}
	manifests := []string{
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{"l":"${a}"},"annotations":{"${a}":"x-${b}-y"}},"data":{"k":"${a}${b}","plain":"$${a}"}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":3,"list":["${b}","x",["${a}"]],"deep":{"er":{"est":"${a}"}}}}`,
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		tmpl := &api.Template{Spec: api.TemplateSpec{Parameters: []api.TemplateParameter{{Name: "a"}, {Name: "b"}}}}
		for _, m := range manifests {
			tmpl.Spec.Manifests = append(tmpl.Spec.Manifests, runtime.RawExtension{Raw: []byte(m)})
		}
		objects, err := template.Manifests(template.Input{Template: tmpl, Parameters: map[string]string{"a": a, "b": b}})
		if err != nil {
			t.Fatalf("%q, %q: %v", a, b, err)
		}
		if len(objects) != len(manifests) {
			t.Fatalf("%d objects out of %d", len(objects), len(manifests))
		}
		for i, object := range objects {
			var plain map[string]any
			if err := json.Unmarshal([]byte(manifests[i]), &plain); err != nil {
				t.Fatal(err)
			}
			// Through JSON, as it goes to an API server.
			content, err := json.Marshal(object.Object)
			if err != nil {
				t.Fatal(err)
			}
			var sent map[string]any
			if err := json.Unmarshal(content, &sent); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(shape(plain), shape(sent)) {
				t.Errorf("%q, %q changed the structure (-want +got):\n%s", a, b, cmp.Diff(shape(plain), shape(sent)))
			}
		}
		annotations := objects[0].GetAnnotations()
		if want := "x-" + b + "-y"; annotations["${a}"] != want {
			t.Errorf("the annotation is %q and not %q", annotations["${a}"], want)
		}
		if data, _, _ := unstructured.NestedString(objects[0].Object, "data", "plain"); data != "${a}" {
			t.Errorf("an escaped reference became %q", data)
		}
	})
}

// TestNothingIsShared holds that a list in two places is two lists.
func TestNothingIsShared(t *testing.T) {
	tmpl := &api.Template{Spec: api.TemplateSpec{
		Parameters: []api.TemplateParameter{{Name: "l", Type: api.ParameterList}},
		Manifests: []runtime.RawExtension{{Raw: []byte(
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"a":"${l}","b":"${l}"}`)}},
	}}
	objects, err := template.Manifests(template.Input{Template: tmpl, Parameters: map[string]string{"l": "x,y"}})
	if err != nil {
		t.Fatal(err)
	}
	objects[0].Object["a"].([]any)[0] = "z"
	if got := fmt.Sprint(objects[0].Object["b"]); got != "[x y]" {
		t.Errorf("b is %s", got)
	}
}

func TestRevision(t *testing.T) {
	of := func(parts ...any) string {
		revision, err := template.Revision(parts...)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	one := map[string]any{"a": int64(1), "b": "x"}
	if of(one) != of(map[string]any{"b": "x", "a": int64(1)}) {
		t.Error("the order of keys matters")
	}
	if of(one) == of(map[string]any{"a": "1", "b": "x"}) || of(one) == of(one, one) {
		t.Error("what differs has the same revision")
	}
}
