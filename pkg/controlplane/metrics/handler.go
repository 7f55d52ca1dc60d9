package metrics

import (
	"errors"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	quota "k8s.io/apiserver/pkg/quota/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// handler answers requests for metrics.
type handler struct {
	server *Server
	codecs serializer.CodecFactory
}

// Handler serves below /apis/metrics.k8s.io/v1beta1 what an API server has
// authenticated and authorized.
func (s *Server) Handler() http.Handler {
	scheme := runtime.NewScheme()
	utilruntime.Must(metricsv1beta1.AddToScheme(scheme))
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	utilruntime.Must(metav1.AddMetaToScheme(scheme))
	return &handler{server: s, codecs: serializer.NewCodecFactory(scheme)}
}

// ServeHTTP answers one.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		responsewriters.ErrorNegotiated(err, h.codecs, metricsv1beta1.SchemeGroupVersion, w, r)
	}
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		return apierrors.NewInternalError(errors.New("the request was not looked at by an API server"))
	}
	if !info.IsResourceRequest {
		responsewriters.WriteObjectNegotiated(h.codecs, negotiation.DefaultEndpointRestrictions, schema.GroupVersion{Version: "v1"}, w, r, http.StatusOK, &metav1.APIResourceList{
			GroupVersion: metricsv1beta1.SchemeGroupVersion.String(),
			APIResources: Resources(),
		}, false)
		return nil
	}
	resource := schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: info.Resource}
	if info.Subresource != "" {
		return apierrors.NewNotFound(resource, info.Name+"/"+info.Subresource)
	}
	if info.Verb != "get" && info.Verb != "list" {
		return apierrors.NewMethodNotSupported(resource, info.Verb)
	}
	options, err := listOptions(r, info.Name)
	if err != nil {
		return err
	}
	var objects []runtime.Object
	var list runtime.Object
	switch {
	case info.Resource == "pods" && (info.Namespace != "" || info.Name == ""):
		found, err := h.server.pods(r.Context(), info.Namespace, options)
		if err != nil {
			return err
		}
		all := &metricsv1beta1.PodMetricsList{Items: []metricsv1beta1.PodMetrics{}}
		for i := range found {
			all.Items = append(all.Items, found[i].metrics)
			objects = append(objects, &found[i].metrics)
		}
		list = all
	case info.Resource == "nodes" && info.Namespace == "":
		found, err := h.server.nodes(r.Context(), options)
		if err != nil {
			return err
		}
		all := &metricsv1beta1.NodeMetricsList{Items: append([]metricsv1beta1.NodeMetrics{}, found...)}
		for i := range found {
			objects = append(objects, &found[i])
		}
		list = all
	default:
		return apierrors.NewNotFound(resource, info.Name)
	}
	answer := list
	if info.Name != "" {
		if len(objects) != 1 {
			return apierrors.NewNotFound(schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: info.Resource}, info.Name)
		}
		answer = objects[0]
	}
	return h.write(w, r, answer, objects)
}

// write answers with the object, or with a table for those who ask for one, as
// kubectl get does.
func (h *handler) write(w http.ResponseWriter, r *http.Request, answer runtime.Object, objects []runtime.Object) error {
	media, _, err := negotiation.NegotiateOutputMediaType(r, h.codecs, tables{})
	if err != nil {
		return err
	}
	gv := metricsv1beta1.SchemeGroupVersion
	if media.Convert != nil {
		answer, gv = table(objects), metav1.SchemeGroupVersion
	}
	responsewriters.WriteObjectNegotiated(h.codecs, tables{}, gv, w, r, http.StatusOK, answer, false)
	return nil
}

// tables allows answers as a table, besides the plain ones.
type tables struct{}

// AllowsMediaTypeTransform allows tables of meta.k8s.io/v1.
func (tables) AllowsMediaTypeTransform(_, _ string, target *schema.GroupVersionKind) bool {
	return target == nil || *target == metav1.SchemeGroupVersion.WithKind("Table")
}

// AllowsServerVersion allows none.
func (tables) AllowsServerVersion(string) bool { return false }

// AllowsStreamSchema allows none.
func (tables) AllowsStreamSchema(string) bool { return false }

// table has the columns of a metrics server's.
func table(objects []runtime.Object) *metav1.Table {
	out := &metav1.Table{
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			{Name: "cpu", Type: "string", Format: "quantity"},
			{Name: "memory", Type: "string", Format: "quantity"},
			{Name: "Window", Type: "string", Format: "duration"},
		},
		Rows: []metav1.TableRow{},
	}
	for _, object := range objects {
		var meta metav1.ObjectMeta
		var window metav1.Duration
		usage := corev1.ResourceList{}
		switch o := object.(type) {
		case *metricsv1beta1.NodeMetrics:
			meta, window, usage = o.ObjectMeta, o.Window, o.Usage
		case *metricsv1beta1.PodMetrics:
			meta, window = o.ObjectMeta, o.Window
			for _, container := range o.Containers {
				usage = quota.Add(usage, container.Usage)
			}
		}
		out.Rows = append(out.Rows, metav1.TableRow{
			Cells:  []any{meta.Name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()},
			Object: runtime.RawExtension{Object: &metav1.PartialObjectMetadata{ObjectMeta: meta, TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}}},
		})
	}
	return out
}
