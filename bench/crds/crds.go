// Package crds installs custom resources as operators bring them, to see what they
// cost.
package crds

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// patience is how long all of them may take until they are served.
const patience = time.Minute

// Create installs count custom resources of some thirty fields each, and waits
// until they are served.
func Create(ctx context.Context, config *rest.Config, count int) error {
	client, err := apiextensions.NewForConfig(config)
	if err != nil {
		return err
	}
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	for i := range count {
		crd := newCRD(i)
		if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create a CRD: %w", err)
		}
	}
	deadline := time.Now().Add(patience)
	for i := range count {
		path := fmt.Sprintf("/apis/bench.example.com/v1/namespaces/default/kind%ds", i)
		for {
			err := client.RESTClient().Get().AbsPath(path).Do(ctx).Error()
			if err == nil {
				break
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return fmt.Errorf("a CRD was not served within %v: %w", patience, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func newCRD(i int) *apiextensionsv1.CustomResourceDefinition {
	plural, kind := fmt.Sprintf("kind%ds", i), fmt.Sprintf("Kind%d", i)
	field := func(n int) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{
			Type:        "string",
			Description: fmt.Sprintf("Field %d of %s tells the controller what to do in a case that comes up rarely and has to be explained at some length.", n, kind),
		}
	}
	properties := map[string]apiextensionsv1.JSONSchemaProps{}
	for n := range 10 {
		properties[fmt.Sprintf("field%d", n)] = field(n)
	}
	nested := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: properties}
	spec := map[string]apiextensionsv1.JSONSchemaProps{
		"template": nested,
		"items":    {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &nested}},
		"labels":   {Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}},
	}
	for n := range 10 {
		spec[fmt.Sprintf("option%d", n)] = field(n)
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".bench.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "bench.example.com",
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: fmt.Sprintf("kind%d", i), Kind: kind, ListKind: kind + "List"},
			Scope: apiextensionsv1.NamespaceScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec":   {Type: "object", Properties: spec},
						"status": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"phase": {Type: "string"}}},
					},
				}},
			}},
		},
	}
}
