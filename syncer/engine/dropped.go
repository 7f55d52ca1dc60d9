package engine

import (
	"fmt"
	"reflect"
	"strings"

	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// dropped names the fields that were asked for and that a server did not keep,
// as one does that is older than they are, without an error. What it changed or
// added is not among them.
func dropped(asked, kept translate.Object) []string {
	askedValue, keptValue := reflect.ValueOf(asked).Elem(), reflect.ValueOf(kept).Elem()
	if askedValue.Type() != keptValue.Type() || askedValue.Kind() != reflect.Struct {
		return nil
	}
	var paths []string
	for i := range askedValue.NumField() {
		field := askedValue.Type().Field(i)
		switch {
		case field.Anonymous, field.Name == "Status":
			// Metadata is known everywhere, and a status goes another way.
		default:
			paths = appendDropped(paths, jsonName(field), askedValue.Field(i), keptValue.Field(i))
		}
	}
	return paths
}

func appendDropped(paths []string, path string, asked, kept reflect.Value) []string {
	switch asked.Kind() {
	case reflect.Pointer:
		switch {
		case asked.IsNil():
			return paths
		case kept.IsNil():
			return append(paths, path)
		}
		return appendDropped(paths, path, asked.Elem(), kept.Elem())
	case reflect.Slice:
		if asked.Type().Elem().Kind() != reflect.Struct {
			if asked.Len() > 0 && kept.Len() == 0 {
				return append(paths, path)
			}
			return paths
		}
		for i := range asked.Len() {
			label, other := elementLike(asked.Index(i), i, kept)
			if !other.IsValid() {
				paths = append(paths, path+label)
				continue
			}
			paths = appendDropped(paths, path+label, asked.Index(i), other)
		}
		return paths
	case reflect.Map:
		for _, key := range asked.MapKeys() {
			if !kept.MapIndex(key).IsValid() {
				paths = append(paths, fmt.Sprintf("%s[%v]", path, key))
			}
		}
		return paths
	case reflect.Struct:
		if isLeaf(asked.Type()) {
			break
		}
		for i := range asked.NumField() {
			field := asked.Type().Field(i)
			below := path
			if name := jsonName(field); name != "" {
				below += "." + name
			}
			paths = appendDropped(paths, below, asked.Field(i), kept.Field(i))
		}
		return paths
	}
	if !asked.IsZero() && kept.IsZero() {
		return append(paths, path)
	}
	return paths
}

// elementLike finds what became of an element of a list: by name, if it has one,
// as a server may put others in front.
func elementLike(asked reflect.Value, index int, kept reflect.Value) (label string, found reflect.Value) {
	name := asked.FieldByName("Name")
	if !name.IsValid() || name.Kind() != reflect.String || name.Len() == 0 {
		label = fmt.Sprintf("[%d]", index)
		if index < kept.Len() {
			found = kept.Index(index)
		}
		return label, found
	}
	label = "[" + name.String() + "]"
	for i := range kept.Len() {
		if kept.Index(i).FieldByName("Name").String() == name.String() {
			return label, kept.Index(i)
		}
	}
	return label, found
}

// isLeaf tells structs that are one value.
func isLeaf(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[apiresource.Quantity](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[intstr.IntOrString]():
		return true
	}
	return false
}

// jsonName is what people call a field; empty for an inlined one.
func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}
