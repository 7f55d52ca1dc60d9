package controlplane

import (
	"reflect"
	"slices"

	"github.com/emicklei/go-restful/v3"
)

// shareRoutes lets routes of one path share what go-restful computed of it: a
// regular expression above all, the biggest part of a route. An API server has
// three routes for each path.
func shareRoutes(container *restful.Container) {
	for _, service := range container.RegisteredWebServices() {
		// Those of the service itself.
		routes := service.Routes()
		first := map[string]int{}
		for i, route := range routes {
			if known, ok := first[route.Path]; ok {
				routes[i] = sharing(routes[known], route)
				continue
			}
			first[route.Path] = i
		}
	}
}

// sharing is a route with what was computed for another one of the same path.
func sharing(computed, route restful.Route) restful.Route {
	ofPath := []string{"relativePath", "pathParts", "pathExpr", "hasCustomVerb"}
	into, from := reflect.ValueOf(&computed).Elem(), reflect.ValueOf(&route).Elem()
	for i := range from.NumField() {
		field := from.Type().Field(i)
		switch {
		case field.IsExported():
			into.Field(i).Set(from.Field(i))
		case !slices.Contains(ofPath, field.Name) && !(from.Field(i).IsZero() && into.Field(i).IsZero()):
			// Something of the route alone, which cannot be copied.
			return route
		}
	}
	return computed
}
