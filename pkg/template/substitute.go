package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A reference is ${NAME} or ${NAME:string}.
const (
	begin  = "${"
	end    = "}"
	escape = "$" + begin
	asText = ":string"
)

// substitution puts values in place of references.
type substitution struct {
	values Values
	known  lookup
	// plain says of which parameters the values must be plain; see ChartValues.
	plain func(name string) bool
}

// manifest fills in one object. Which kind of object it is, no parameter
// decides.
func (s substitution) manifest(raw *runtime.RawExtension, path *field.Path) (map[string]any, field.ErrorList) {
	parsed, err := parse(raw)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	var errs field.ErrorList
	for _, key := range []string{"apiVersion", "kind"} {
		value, ok := parsed[key].(string)
		if !ok || value == "" {
			errs = append(errs, field.Required(path.Child(key), "a manifest is one Kubernetes object"))
		} else if strings.Contains(value, begin) {
			errs = append(errs, field.Invalid(path.Child(key), value, "no parameter can decide of which kind an object is"))
		}
	}
	if kind, ok := parsed["kind"].(string); ok && strings.HasSuffix(kind, "List") {
		if _, ok := parsed["items"].([]any); ok {
			errs = append(errs, field.Invalid(path.Child("kind"), kind, "a manifest is one object: write each entry of the list as a manifest of its own"))
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return s.fill(parsed, path)
}

func (s substitution) object(raw *runtime.RawExtension, path *field.Path) (map[string]any, field.ErrorList) {
	parsed, err := parse(raw)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	return s.fill(parsed, path)
}

func parse(raw *runtime.RawExtension) (map[string]any, error) {
	if raw == nil || len(bytes.TrimSpace(raw.Raw)) == 0 {
		return map[string]any{}, nil
	}
	var parsed map[string]any
	// This one reads whole numbers as int64, as the API machinery wants them.
	if err := utiljson.Unmarshal(raw.Raw, &parsed); err != nil {
		return nil, errors.New("must be an object")
	}
	return parsed, nil
}

func (s substitution) fill(parsed map[string]any, path *field.Path) (map[string]any, field.ErrorList) {
	filled, errs := s.value(parsed, path)
	object, _ := filled.(map[string]any)
	return object, errs
}

// value fills in what is below a value. Keys stay as they are.
func (s substitution) value(value any, path *field.Path) (any, field.ErrorList) {
	var errs field.ErrorList
	switch value := value.(type) {
	case map[string]any:
		filled := make(map[string]any, len(value))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			entry, problems := s.value(value[key], path.Child(key))
			filled[key], errs = entry, append(errs, problems...)
		}
		return filled, errs
	case []any:
		filled := make([]any, 0, len(value))
		for i := range value {
			entry, problems := s.value(value[i], path.Index(i))
			filled, errs = append(filled, entry), append(errs, problems...)
		}
		return filled, errs
	case string:
		filled, err := s.text(value)
		if err != nil {
			return nil, field.ErrorList{field.Invalid(path, value, err.Error())}
		}
		return filled, nil
	}
	return value, nil
}

// text fills in one string. If it is nothing but one reference, it becomes what
// that refers to.
func (s substitution) text(in string) (any, error) {
	var out strings.Builder
	rest := in
	for {
		at := strings.Index(rest, begin)
		if at < 0 {
			out.WriteString(rest)
			return out.String(), nil
		}
		if at > 0 && rest[at-1] == '$' {
			out.WriteString(rest[:at-1] + begin)
			rest = rest[at+len(begin):]
			continue
		}
		out.WriteString(rest[:at])
		name, after, closed := strings.Cut(rest[at+len(begin):], end)
		if !closed {
			return nil, fmt.Errorf("%q is not closed: write %s to leave it as it is", rest[at:], escape)
		}
		name, textual := strings.CutSuffix(name, asText)
		value, err := s.find(name)
		if err != nil {
			return nil, err
		}
		if len(rest) == len(in) && at == 0 && after == "" && !textual {
			return value, nil
		}
		out.WriteString(text(value))
		rest = after
	}
}

var names = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s substitution) find(name string) (any, error) {
	if strings.HasPrefix(name, tenantPrefix) {
		value, err := s.known(name)
		if err == nil && s.plain != nil && !isPlain(value) {
			return nil, fmt.Errorf("${%s} has several lines or {{, which could change what the chart makes of it", name)
		}
		return value, err
	}
	value, ok := s.values[name]
	if !ok {
		leave := fmt.Sprintf("write $${%s} to leave it as it is", name)
		if !names.MatchString(name) {
			return nil, fmt.Errorf("${%s} is no parameter: %s", name, leave)
		}
		return nil, fmt.Errorf("parameter %q is not declared: declare it under spec.parameters, or %s", name, leave)
	}
	if s.plain != nil && s.plain(name) && !isPlain(value) {
		return nil, fmt.Errorf("the value of parameter %q has several lines or {{, which could change what the chart makes of it: "+
			"leave that out, or declare a pattern for the parameter that allows more", name)
	}
	return clone(value), nil
}

// isPlain says whether a value is one line that no chart takes for a template.
func isPlain(value any) bool {
	content := text(value)
	return !strings.Contains(content, "{{") && !strings.ContainsFunc(content, func(r rune) bool { return r < ' ' })
}

// clone keeps objects apart that hold the same value.
func clone(value any) any {
	switch value.(type) {
	case []any, map[string]any:
		return runtime.DeepCopyJSONValue(value)
	}
	return value
}

// canonical is an object as text that depends on nothing but what is in it.
func canonical(objects any) ([]byte, error) {
	return json.Marshal(objects)
}
