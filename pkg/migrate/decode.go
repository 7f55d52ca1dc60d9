package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
)

// gap is a field of a peer's object that has no counterpart.
type gap struct {
	// path as in "spec.space.limit"; it covers all that is below it.
	path string
	// usual is a value that changes nothing, beside false, 0 and the empty ones.
	usual any
	// advice says why, and what to do.
	advice string
}

// decode reads an object into one of this package's structs and notes each field
// that the struct does not have and that says something.
func (r *Result) decode(object *unstructured.Unstructured, of string, into any, gaps []gap) error {
	content, err := object.MarshalJSON()
	if err != nil {
		return fmt.Errorf("%s: %w", describe(object), err)
	}
	unknown, err := kjson.UnmarshalStrict(content, into, kjson.DisallowUnknownFields)
	var typeError *json.UnmarshalTypeError
	if errors.As(err, &typeError) {
		return fmt.Errorf("%s: the field %s holds a %s, where it should be of type %s", describe(object), typeError.Field, typeError.Value, typeError.Type)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", describe(object), err)
	}
	for _, strict := range unknown {
		var field kjson.FieldError
		if !errors.As(strict, &field) {
			return fmt.Errorf("%s: %w", describe(object), strict)
		}
		path := field.FieldPath()
		value, found := lookUp(object.Object, path)
		if found && says(value) {
			r.noteGap(object, of, path, value, gaps)
		}
	}
	return nil
}

func (r *Result) noteGap(object *unstructured.Unstructured, of, path string, value any, gaps []gap) {
	for _, g := range gaps {
		plain := regexp.MustCompile(`\[[0-9]+\]`).ReplaceAllString(path, "")
		if plain != g.path && !strings.HasPrefix(plain, g.path+".") {
			continue
		}
		if g.usual != nil && reflect.DeepEqual(value, g.usual) {
			return
		}
		r.note(object, of, "%s%s has no counterpart: %s", path, shown(value), g.advice)
		return
	}
	r.note(object, of, "%s%s has no counterpart", path, shown(value))
}

// shown is a value that is short enough to be named in a sentence.
func shown(value any) string {
	switch value.(type) {
	case map[string]any, []any:
		return ""
	}
	text := fmt.Sprint(value)
	if len(text) > 60 || strings.Contains(text, "\n") {
		return ""
	}
	return " (" + text + ")"
}

// says reports whether a value is more than nothing.
func says(value any) bool {
	switch v := value.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case map[string]any:
		for _, inner := range v {
			if says(inner) {
				return true
			}
		}
		return false
	}
	return true
}

// lookUp finds a field by a path such as spec.owners[0].name. Keys of maps may
// have dots in them, so that the longest name that is there counts.
func lookUp(in any, path string) (any, bool) {
	if path == "" {
		return in, true
	}
	if index, rest, ok := cutIndex(path); ok {
		list, isList := in.([]any)
		if !isList || index >= len(list) {
			return nil, false
		}
		return lookUp(list[index], rest)
	}
	fields, ok := in.(map[string]any)
	if !ok {
		return nil, false
	}
	for end := len(path); end > 0; end-- {
		if end < len(path) && path[end] != '.' && path[end] != '[' {
			continue
		}
		if inner, ok := fields[path[:end]]; ok {
			if value, found := lookUp(inner, strings.TrimPrefix(path[end:], ".")); found {
				return value, true
			}
		}
	}
	return nil, false
}

func cutIndex(path string) (index int, rest string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return 0, "", false
	}
	digits, rest, ok := strings.Cut(path[1:], "]")
	index, err := strconv.Atoi(digits)
	return index, strings.TrimPrefix(rest, "."), ok && err == nil && index >= 0
}
