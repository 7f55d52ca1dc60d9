package engine

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// eventSink writes events into the tenant.
type eventSink struct {
	ctx  context.Context
	rest rest.Interface
}

func (s *eventSink) Create(event *corev1.Event) (*corev1.Event, error) {
	out := &corev1.Event{}
	err := s.rest.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(s.ctx).Into(out)
	return out, err
}

func (s *eventSink) Update(event *corev1.Event) (*corev1.Event, error) {
	out := &corev1.Event{}
	err := s.rest.Put().Namespace(event.Namespace).Resource("events").Name(event.Name).Body(event).Do(s.ctx).Into(out)
	return out, err
}

func (s *eventSink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	out := &corev1.Event{}
	err := s.rest.Patch(types.StrategicMergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(data).Do(s.ctx).Into(out)
	return out, err
}
