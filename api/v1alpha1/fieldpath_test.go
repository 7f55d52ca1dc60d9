package v1alpha1_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func TestParseFieldPath(t *testing.T) {
	for text, want := range map[string]api.FieldPath{
		".spec.secretName":        {{Name: "spec"}, {Name: "secretName"}},
		".spec.tls[*].secretName": {{Name: "spec"}, {Name: "tls", Each: true}, {Name: "secretName"}},
		".data_1-b[*]":            {{Name: "data_1-b", Each: true}},
		".spec.metadata.name":     {{Name: "spec"}, {Name: "metadata"}, {Name: "name"}},
	} {
		got, err := api.ParseFieldPath(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		if got.String() != text {
			t.Errorf("%s comes back as %s", text, got)
		}
	}
	for text, says := range map[string]string{
		"":                       "begins with a dot",
		"spec.secretName":        "begins with a dot",
		".":                      "no name of a field",
		".spec..name":            "no name of a field",
		".spec.":                 "no name of a field",
		".spec.tls[0].name":      `"tls[0]" is no name of a field`,
		".spec.tls[*][*].name":   "no name of a field",
		".spec.[*]":              "no name of a field",
		".spec.a b":              "no name of a field",
		".metadata.name":         ".metadata",
		".status.secretName":     ".status",
		".kind":                  ".kind",
		"{.spec.secretName}":     "begins with a dot",
		".spec['secretName']":    "no name of a field",
		"$.spec.secretName":      "begins with a dot",
		".spec.secretName\n":     "no name of a field",
		".spec.annotations.a/b":  "no name of a field",
		".spec.annotations.ä":    "no name of a field",
		".spec.list[*]name":      "no name of a field",
		".spec.list[ *].name":    "no name of a field",
		".apiVersion.secretName": ".apiVersion",
	} {
		if _, err := api.ParseFieldPath(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestFieldPathBeside(t *testing.T) {
	parse := func(text string) api.FieldPath {
		path, err := api.ParseFieldPath(text)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{".spec.ref.name", ".spec.ref.kind", true},
		{".spec.refs[*].name", ".spec.refs[*].kind", true},
		{".spec.names[*]", ".spec.kind", true},
		{".spec.refs[*].name", ".spec.refs.kind", false},
		{".spec.ref.name", ".spec.kind", false},
		{".spec.ref.name", ".spec.other.kind", false},
	} {
		if got := parse(test.a).Beside(parse(test.b)); got != test.want {
			t.Errorf("%s beside %s: %v", test.b, test.a, got)
		}
	}
}
