package tenant

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// TestCascadeMeetsAChange: a child that somebody changes at that moment is left for
// the next attempt, which comes by itself; the others are not held up, and nobody
// reads of conflicts.
func TestCascadeMeetsAChange(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	folder := func(name, parent string) *api.Tenant {
		return &api.Tenant{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Finalizers: []string{api.FinalizerTenant}},
			Spec:       api.TenantSpec{Type: api.Folder, Parent: parent, DeletionPolicy: api.DeletionCascade},
		}
	}
	changing := true
	c := fake.NewClientBuilder().WithScheme(scheme).
		WithObjects(folder("root", ""), folder("top", ""), folder("busy", "top"), folder("quiet", "top")).
		WithStatusSubresource(&api.Tenant{}).
		WithIndex(&api.Tenant{}, IndexParent, func(object client.Object) []string {
			if tenant, ok := object.(*api.Tenant); ok && tenancy.Parent(tenant) != "" {
				return []string{tenancy.Parent(tenant)}
			}
			return nil
		}).
		WithInterceptorFuncs(interceptor.Funcs{Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			if changing && object.GetName() == "busy" {
				return apierrors.NewConflict(schema.GroupResource{Group: api.GroupName, Resource: "tenants"}, "busy", errors.New("it changed"))
			}
			return c.Delete(ctx, object)
		}}).Build()
	top := folder("top", "")
	if err := c.Delete(t.Context(), top); err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{Client: c, Live: c, Now: time.Now}
	finalize := func() (ctrl.Result, *api.Tenant) {
		t.Helper()
		tenant := &api.Tenant{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "top"}, tenant); err != nil {
			t.Fatal(err)
		}
		result, err := r.finalize(t.Context(), newState(tenant, r.Now()))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKey{Name: "top"}, tenant); err != nil {
			t.Fatal(err)
		}
		return result, tenant
	}
	leaves := func(name string) bool {
		t.Helper()
		tenant := &api.Tenant{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, tenant); err != nil {
			t.Fatal(err)
		}
		return !tenant.DeletionTimestamp.IsZero()
	}
	result, tenant := finalize()
	if result.RequeueAfter == 0 {
		t.Error("nothing comes back to the one that changed")
	}
	if leaves("busy") || !leaves("quiet") {
		t.Errorf("busy is deleted: %v, quiet is deleted: %v", leaves("busy"), leaves("quiet"))
	}
	blocked := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionDeletionBlocked)
	if blocked == nil || blocked.Reason != reasonCascading || blocked.Message != "tenants below are deleted first: busy, quiet" || strings.Contains(blocked.Message, "changed") {
		t.Errorf("the condition is %+v", blocked)
	}
	changing = false
	if result, _ = finalize(); result.RequeueAfter != 0 {
		t.Error("it comes back for nothing: the end of each wakes it up")
	}
	if !leaves("busy") {
		t.Error("the one that changed stays")
	}
}
