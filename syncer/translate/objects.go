package translate

// Objects holds what was gathered for a translation.
type Objects struct {
	Virtual []Object
	Host    []Object
}

func (o Objects) side(s Side) []Object {
	if s == Host {
		return o.Host
	}
	return o.Virtual
}

// Find returns the gathered object of type T with this namespace and name, or
// nil if there is none.
func Find[T Object](o Objects, side Side, namespace, name string) T {
	for _, object := range o.side(side) {
		found, ok := object.(T)
		if ok && found.GetNamespace() == namespace && found.GetName() == name {
			return found
		}
	}
	var none T
	return none
}

// FindAll returns the gathered objects of type T in this namespace.
func FindAll[T Object](o Objects, side Side, namespace string) []T {
	var all []T
	for _, object := range o.side(side) {
		if found, ok := object.(T); ok && found.GetNamespace() == namespace {
			all = append(all, found)
		}
	}
	return all
}
