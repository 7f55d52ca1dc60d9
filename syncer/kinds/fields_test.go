package kinds_test

import (
	"reflect"
	"slices"
	"testing"
)

// fieldList classifies every field of one Kubernetes struct. The next release
// of Kubernetes may not slip a field through: TestFields fails until somebody
// has decided.
type fieldList struct {
	of any
	// copied cross as they are, translated are changed on the way.
	copied, translated []string
	// dropped do not cross, for a reason that stands in the translation.
	// refused make the translation fail.
	dropped, refused []string
}

func checkFields(t *testing.T, lists []fieldList) {
	t.Helper()
	for _, list := range lists {
		structType := reflect.TypeOf(list.of)
		seen := map[string]int{}
		for _, class := range [][]string{list.copied, list.translated, list.dropped, list.refused} {
			for _, field := range class {
				seen[field]++
				if _, ok := structType.FieldByName(field); !ok {
					t.Errorf("%s has no field %s", structType, field)
				}
			}
		}
		for i := range structType.NumField() {
			switch name := structType.Field(i).Name; seen[name] {
			case 0:
				t.Errorf("%s.%s is not classified: decide whether it is copied, translated, dropped or refused, and have the translation do it", structType, name)
			case 1:
			default:
				t.Errorf("%s.%s is classified more than once", structType, name)
			}
		}
	}
}

// checkCopied fails unless each field listed as copied really is: out has what
// in has.
func checkCopied(t *testing.T, list fieldList, in, out any) {
	t.Helper()
	inValue, outValue := reflect.ValueOf(in), reflect.ValueOf(out)
	for i := range inValue.NumField() {
		name := inValue.Type().Field(i).Name
		if slices.Contains(list.copied, name) && !reflect.DeepEqual(inValue.Field(i).Interface(), outValue.Field(i).Interface()) {
			t.Errorf("%s.%s is listed as copied but was %v and became %v", inValue.Type(), name, inValue.Field(i), outValue.Field(i))
		}
	}
}
