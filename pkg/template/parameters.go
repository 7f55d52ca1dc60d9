package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Values are those of a template's parameters: string, int64, float64, bool or
// []any of string.
type Values map[string]any

// Validate names all that makes a template useless whoever refers to it.
func Validate(t *api.Template) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "parameters")
	for i := range t.Spec.Parameters {
		p := &t.Spec.Parameters[i]
		at := path.Key(p.Name)
		if _, err := expression(p); err != nil {
			errs = append(errs, field.Invalid(at.Child("pattern"), p.Pattern, "is no regular expression of the RE2 kind: "+err.Error()))
			continue
		}
		if p.Default != "" {
			if _, err := valueOf(p, p.Default); err != nil {
				errs = append(errs, field.Invalid(at.Child("default"), p.Default, err.Error()))
			}
		}
	}
	if len(t.Spec.Manifests) == 0 && t.Spec.Chart == nil {
		errs = append(errs, field.Required(field.NewPath("spec", "manifests"), "a template has manifests or a chart"))
	}
	// With values that are right, all that is left to be wrong is the template.
	values := Values{}
	for i := range t.Spec.Parameters {
		values[t.Spec.Parameters[i].Name] = zero(t.Spec.Parameters[i].Type)
	}
	s := substitution{values: values, known: anyTenant}
	for i := range t.Spec.Manifests {
		_, problems := s.manifest(&t.Spec.Manifests[i], field.NewPath("spec", "manifests").Index(i))
		errs = append(errs, problems...)
	}
	if c := t.Spec.Chart; c != nil && c.Values != nil {
		_, problems := s.object(c.Values, field.NewPath("spec", "chart", "values"))
		errs = append(errs, problems...)
	}
	return errs
}

// ValuesFor are the values that a reference gives to a template's parameters.
// Everything wrong with them is named at once.
func ValuesFor(t *api.Template, given map[string]string) (Values, error) {
	values := Values{}
	var problems []string
	for i := range t.Spec.Parameters {
		p := &t.Spec.Parameters[i]
		text, ok := given[p.Name]
		switch {
		case !ok && p.Required:
			problem := fmt.Sprintf("parameter %q is required: give it under parameters", p.Name)
			if p.Description != "" {
				problem += fmt.Sprintf(" (%s)", p.Description)
			}
			problems = append(problems, problem)
			continue
		case !ok && p.Default == "":
			values[p.Name] = zero(p.Type)
			continue
		case !ok:
			text = p.Default
		}
		value, err := valueOf(p, text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("parameter %q: %s", p.Name, err))
			continue
		}
		values[p.Name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if slices.ContainsFunc(t.Spec.Parameters, func(p api.TemplateParameter) bool { return p.Name == name }) {
			continue
		}
		problems = append(problems, fmt.Sprintf("there is no parameter %q: %s", name, choice(t.Spec.Parameters)))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("template %q: %s", t.Name, strings.Join(problems, "; "))
	}
	return values, nil
}

func choice(parameters []api.TemplateParameter) string {
	if len(parameters) == 0 {
		return "the template has none"
	}
	names := make([]string, 0, len(parameters))
	for i := range parameters {
		names = append(names, parameters[i].Name)
	}
	return "the template has " + strings.Join(names, ", ")
}

func zero(t api.ParameterType) any {
	switch t {
	case api.ParameterInteger:
		return int64(0)
	case api.ParameterNumber:
		return float64(0)
	case api.ParameterBoolean:
		return false
	case api.ParameterList:
		return []any{}
	default:
		return ""
	}
}

// valueOf reads the text of a parameter as its type has it.
func valueOf(p *api.TemplateParameter, text string) (any, error) {
	match, err := expression(p)
	if err != nil {
		return nil, fmt.Errorf("its pattern %q is no regular expression; the template must be corrected", p.Pattern)
	}
	check := func(text string) error {
		if match != nil && !match.MatchString(text) {
			return fmt.Errorf("%q does not match the pattern %s", text, p.Pattern)
		}
		if len(p.Enum) > 0 && !slices.Contains(p.Enum, text) {
			return fmt.Errorf("%q is none of %s", text, strings.Join(p.Enum, ", "))
		}
		return nil
	}
	if p.Type == api.ParameterList {
		list, err := listOf(text)
		if err != nil {
			return nil, err
		}
		values := make([]any, 0, len(list))
		for _, entry := range list {
			if err := check(entry); err != nil {
				return nil, err
			}
			values = append(values, entry)
		}
		return values, nil
	}
	if err := check(text); err != nil {
		return nil, err
	}
	switch p.Type {
	case api.ParameterInteger:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no whole number", text)
		}
		return n, nil
	case api.ParameterNumber:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%q is no number", text)
		}
		return f, nil
	case api.ParameterBoolean:
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", text)
	default:
		return text, nil
	}
}

func listOf(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		list := strings.Split(text, ",")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return list, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf(`%q is no list of texts: write a,b or ["a","b"]`, text)
	}
	return list, nil
}

// expression matches whole values; nil when everything does.
func expression(p *api.TemplateParameter) (*regexp.Regexp, error) {
	if p.Pattern == "" {
		return nil, nil
	}
	if _, err := regexp.Compile(p.Pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + p.Pattern + `)\z`)
}

// text is a value within a longer text.
func text(value any) string {
	switch value := value.(type) {
	case string:
		return value
	case int64:
		return strconv.FormatInt(value, 10)
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(value)
	case []any:
		texts := make([]string, 0, len(value))
		plain := true
		for _, entry := range value {
			entryText, ok := entry.(string)
			plain = plain && ok
			texts = append(texts, entryText)
		}
		if plain {
			return strings.Join(texts, ",")
		}
	}
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(content)
}
