package controlplane

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/emicklei/go-restful/v3"
)

// TestSharedRoutes checks that routes of one path share its expression and are
// what they were for the rest.
func TestSharedRoutes(t *testing.T) {
	service := new(restful.WebService).Path("/api")
	answer := func(text string) restful.RouteFunction {
		return func(r *restful.Request, w *restful.Response) {
			_, _ = w.Write([]byte(text + " " + r.PathParameter("name") + " " + r.SelectedRoute().Operation()))
		}
	}
	service.Route(service.GET("/things/{name}").To(answer("got")).Operation("get").Produces("text/plain"))
	service.Route(service.PUT("/things/{name}").To(answer("put")).Operation("put").Consumes("text/plain"))
	service.Route(service.DELETE("/things/{name}").To(answer("deleted")).Operation("delete").ContentEncodingEnabled(true))
	service.Route(service.GET("/things").To(answer("listed")).Operation("list"))
	container := restful.NewContainer()
	container.Router(restful.CurlyRouter{})
	container.Add(service)
	shareRoutes(container)

	expression := func(i int) uintptr {
		return reflect.ValueOf(service.Routes()[i]).FieldByName("pathExpr").Pointer()
	}
	if expression(0) != expression(1) {
		t.Error("routes of the same path have an expression each")
	}
	if expression(0) == expression(2) {
		t.Error("a route that is special has lost what is special")
	}
	if expression(0) == expression(3) {
		t.Error("routes of other paths have the same expression")
	}

	cases := map[string]struct {
		method, path string
		status       int
		body         string
	}{
		"get":       {http.MethodGet, "/api/things/one", http.StatusOK, "got one get"},
		"put":       {http.MethodPut, "/api/things/two", http.StatusOK, "put two put"},
		"delete":    {http.MethodDelete, "/api/things/three", http.StatusOK, "deleted three delete"},
		"list":      {http.MethodGet, "/api/things", http.StatusOK, "listed  list"},
		"no method": {http.MethodPost, "/api/things/one", http.StatusMethodNotAllowed, "405: Method Not Allowed"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(test.method, test.path, nil)
			request.Header.Set("Content-Type", "text/plain")
			response := httptest.NewRecorder()
			container.ServeHTTP(response, request)
			if response.Code != test.status || response.Body.String() != test.body {
				t.Errorf("%d %q, want %d %q", response.Code, response.Body.String(), test.status, test.body)
			}
		})
	}
}
