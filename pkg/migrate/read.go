package migrate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Read reads objects of any kind: YAML documents or JSON, lists or single ones.
func Read(content []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for number := 1; ; number++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		var value any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(asJSON, &value); err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		if value == nil {
			continue // comments only
		}
		fields, ok := value.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("document %d is no object of Kubernetes, but a %T", number, value)
		}
		found, err := flatten(&unstructured.Unstructured{Object: fields})
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		objects = append(objects, found...)
	}
}

// flatten takes a list apart.
func flatten(object *unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	kind, isList := strings.CutSuffix(object.GetKind(), "List")
	items, hasItems := object.Object["items"]
	if !isList || !hasItems {
		return []*unstructured.Unstructured{object}, nil
	}
	list, ok := items.([]any)
	if !ok && items != nil {
		return nil, fmt.Errorf("the items of a %s are no list", object.GetKind())
	}
	var objects []*unstructured.Unstructured
	for i, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("items[%d] of a %s is no object", i, object.GetKind())
		}
		inner := &unstructured.Unstructured{Object: fields}
		// The API leaves them out in lists of one kind.
		if kind != "" && inner.GetKind() == "" && inner.GetAPIVersion() == "" {
			inner.SetKind(kind)
			inner.SetAPIVersion(object.GetAPIVersion())
		}
		found, err := flatten(inner)
		if err != nil {
			return nil, fmt.Errorf("items[%d]: %w", i, err)
		}
		objects = append(objects, found...)
	}
	return objects, nil
}
