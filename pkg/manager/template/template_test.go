package template

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/helm"
)

func tenantWith(name string, refs []api.TemplateRef, entries ...api.AppliedTemplate) api.Tenant {
	t := api.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.TenantSpec{Type: api.Namespace}}
	t.Status.Effective = &api.EffectiveStatus{}
	for _, ref := range refs {
		t.Status.Effective.Templates = append(t.Status.Effective.Templates, api.EffectiveTemplate{TemplateRef: ref, From: name})
	}
	t.Status.Templates = entries
	return t
}

func TestCounted(t *testing.T) {
	kept, once := []api.TemplateRef{{Name: "t", Sync: true}}, []api.TemplateRef{{Name: "t"}}
	entry := func(state api.TemplateState, generation int64) api.AppliedTemplate {
		return api.AppliedTemplate{Name: "t", State: state, ObservedGeneration: generation, Message: "a reason"}
	}
	leaving := tenantWith("leaving", kept, entry(api.TemplateFailed, 1))
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	above := tenantWith("above", kept)
	above.Spec.Type = api.Folder
	cases := map[string]struct {
		tenants                  []api.Tenant
		users, applied, failures int32
		reason                   string
		status                   metav1.ConditionStatus
	}{
		"nobody":                         {reason: reasonUnused, status: metav1.ConditionTrue},
		"a Folder is no user":            {tenants: []api.Tenant{above}, reason: reasonUnused, status: metav1.ConditionTrue},
		"nor is one that goes":           {tenants: []api.Tenant{leaving}, reason: reasonUnused, status: metav1.ConditionTrue},
		"one without an entry":           {tenants: []api.Tenant{tenantWith("a", kept)}, users: 1, reason: reasonRollingOut, status: metav1.ConditionFalse},
		"an older generation":            {tenants: []api.Tenant{tenantWith("a", kept, entry(api.TemplateApplied, 1))}, users: 1, reason: reasonRollingOut, status: metav1.ConditionFalse},
		"an older generation, once":      {tenants: []api.Tenant{tenantWith("a", once, entry(api.TemplateApplied, 1))}, users: 1, applied: 1, reason: reasonRolledOut, status: metav1.ConditionTrue},
		"this generation":                {tenants: []api.Tenant{tenantWith("a", kept, entry(api.TemplateApplied, 2))}, users: 1, applied: 1, reason: reasonRolledOut, status: metav1.ConditionTrue},
		"one fails":                      {tenants: []api.Tenant{tenantWith("a", kept, entry(api.TemplateFailed, 2)), tenantWith("b", kept, entry(api.TemplateApplied, 2))}, users: 2, applied: 1, failures: 1, reason: "Failed", status: metav1.ConditionFalse},
		"another template of the tenant": {tenants: []api.Tenant{tenantWith("a", []api.TemplateRef{{Name: "other"}}, entry(api.TemplateApplied, 2))}, reason: reasonUnused, status: metav1.ConditionTrue},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tmpl := &api.Template{
				ObjectMeta: metav1.ObjectMeta{Name: "t", Generation: 2},
				Spec:       api.TemplateSpec{Manifests: []runtime.RawExtension{{Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`)}}},
			}
			counted(tmpl, c.tenants, time.Unix(100, 0))
			got := []int32{tmpl.Status.Tenants, tmpl.Status.Applied, tmpl.Status.Failed}
			if diff := cmp.Diff([]int32{c.users, c.applied, c.failures}, got); diff != "" {
				t.Errorf("tenants, applied, failed (-want +got):\n%s", diff)
			}
			rolled := meta.FindStatusCondition(tmpl.Status.Conditions, api.ConditionRolledOut)
			if rolled.Reason != c.reason || rolled.Status != c.status {
				t.Errorf("the condition is %+v", rolled)
			}
			if c.failures > 0 && !strings.Contains(rolled.Message, "a: a reason") {
				t.Errorf("the message does not name the tenant: %s", rolled.Message)
			}
			if !meta.IsStatusConditionTrue(tmpl.Status.Conditions, api.ConditionValid) {
				t.Errorf("it is not valid: %+v", tmpl.Status.Conditions)
			}
			before := tmpl.DeepCopy()
			counted(tmpl, c.tenants, time.Unix(200, 0))
			if diff := cmp.Diff(before.Status, tmpl.Status); diff != "" {
				t.Errorf("counting again changes it (-before +after):\n%s", diff)
			}
		})
	}
}

func TestCondition(t *testing.T) {
	cases := map[string]struct {
		states []api.TemplateState
		want   string
	}{
		"none":                  {nil, ""},
		"all applied":           {[]api.TemplateState{api.TemplateApplied, api.TemplateApplied}, "True"},
		"one waits":             {[]api.TemplateState{api.TemplateApplied, api.TemplateWaiting}, "False t1"},
		"a failure comes first": {[]api.TemplateState{api.TemplateApplying, api.TemplateFailed, api.TemplateFailed}, "False t1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newRound(&api.Tenant{})
			for i, state := range c.states {
				s.entry(fmt.Sprintf("t%d", i)).State = state
			}
			got := ""
			if condition := s.condition(time.Unix(1, 0)); condition != nil {
				got = string(condition.Status)
				if rest, ok := strings.CutPrefix(condition.Message, `template "`); ok {
					got += " " + rest[:strings.Index(rest, `"`)]
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestMatter holds that what the controller writes itself does not wake it up.
func TestMatter(t *testing.T) {
	base := tenantWith("a", []api.TemplateRef{{Name: "t"}})
	cases := map[string]struct {
		change func(*api.Tenant)
		want   bool
	}{
		"nothing":               {func(*api.Tenant) {}, false},
		"its own entries":       {func(t *api.Tenant) { t.Status.Templates = []api.AppliedTemplate{{Name: "t"}} }, false},
		"its own condition":     {condition(api.ConditionTemplatesApplied), false},
		"usage":                 {func(t *api.Tenant) { t.Status.Children = 3 }, false},
		"the fence":             {condition(api.ConditionFenceReady), true},
		"the control plane":     {condition(api.ConditionControlPlaneReady), true},
		"the place":             {condition(api.ConditionPlaced), true},
		"another template":      {func(t *api.Tenant) { t.Status.Effective.Templates[0].Name = "u" }, true},
		"a parameter":           {func(t *api.Tenant) { t.Status.Effective.Templates[0].Parameters = map[string]string{"a": "b"} }, true},
		"a member":              {func(t *api.Tenant) { t.Status.Effective.Members = []api.EffectiveMember{{Name: "ann"}} }, true},
		"a label of the tenant": {func(t *api.Tenant) { t.Labels = map[string]string{"a": "b"} }, true},
		"the path":              {func(t *api.Tenant) { t.Status.Path = "root/a" }, true},
		"its end":               {func(t *api.Tenant) { t.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			after := base.DeepCopy()
			c.change(after)
			if got := matter(&base, after); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func condition(kind string) func(*api.Tenant) {
	return func(t *api.Tenant) {
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "X"})
	}
}

// TestMatters holds that a status is nobody's drift.
func TestMatters(t *testing.T) {
	object := func(version string, generation int64, labels map[string]string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version, Generation: generation, Labels: labels}}
	}
	cases := map[string]struct {
		before, after *metav1.PartialObjectMetadata
		want          bool
	}{
		"the same":                {object("1", 1, nil), object("1", 1, nil), false},
		"a status":                {object("1", 1, nil), object("2", 1, nil), false},
		"a spec":                  {object("1", 1, nil), object("2", 2, nil), true},
		"a label":                 {object("1", 1, nil), object("2", 1, map[string]string{"a": "b"}), true},
		"another value of one":    {object("1", 1, map[string]string{"a": "b"}), object("2", 1, map[string]string{"a": "c"}), true},
		"a kind that counts none": {object("1", 0, nil), object("2", 0, nil), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := matters(c.before, c.after); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestHooks(t *testing.T) {
	named := func(name string, at ...helm.Moment) helm.Hook {
		object := &unstructured.Unstructured{}
		object.SetName(name)
		return helm.Hook{Object: object, At: at}
	}
	p := &plan{hooks: []helm.Hook{
		named("a", helm.PreInstall, helm.PreUpgrade), named("b", helm.PreUpgrade), named("c", helm.PostInstall),
	}}
	for name, c := range map[string]struct {
		at      stage
		install bool
		want    string
	}{
		"before the installation": {before(), true, "a"},
		"before an upgrade":       {before(), false, "a b"},
		"after the installation":  {after(), true, "c"},
		"after an upgrade":        {after(), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, hook := range p.due(c.at, c.install) {
				got = append(got, hook.Object.GetName())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		object map[string]any
		done   bool
		failed string
	}{
		"a new Job":       {object: map[string]any{"apiVersion": "batch/v1", "kind": "Job"}},
		"a Job done":      {object: job("Complete", "True", ""), done: true},
		"a Job not done":  {object: job("Complete", "False", "")},
		"a Job suspended": {object: job("Suspended", "True", "")},
		"a Job failed":    {object: job("Failed", "True", "too often"), failed: "too often"},
		"a Pod":           {object: map[string]any{"apiVersion": "v1", "kind": "Pod"}},
		"a Pod done":      {object: pod("Succeeded"), done: true},
		"a Pod failed":    {object: pod("Failed"), failed: "see the log of the pod"},
		"anything else":   {object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}, done: true},
		"another Job":     {object: map[string]any{"apiVersion": "example.com/v1", "kind": "Job"}, done: true},
	} {
		t.Run(name, func(t *testing.T) {
			done, failed := outcome(&unstructured.Unstructured{Object: c.object})
			if done != c.done || failed != c.failed {
				t.Errorf("done %v, failed %q", done, failed)
			}
		})
	}
}

func job(kind, status, message string) map[string]any {
	return map[string]any{"apiVersion": "batch/v1", "kind": "Job", "status": map[string]any{
		"conditions": []any{map[string]any{"type": kind, "status": status, "message": message}},
	}}
}

func pod(phase string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "status": map[string]any{"phase": phase}}
}

func TestTrouble(t *testing.T) {
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}}}
	resource := schema.GroupResource{Resource: "configmaps"}
	for name, c := range map[string]struct {
		err          error
		reason, says string
	}{
		"no right":        {apierrors.NewForbidden(resource, "x", fmt.Errorf(`User "u" cannot create resource`)), reasonForbidden, "rights of an admin"},
		"refused":         {apierrors.NewForbidden(resource, "x", fmt.Errorf("exceeded quota")), reasonForbidden, "exceeded quota"},
		"no such kind":    {&meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "ConfigMap"}}, reasonUnknownKind, "install what brings it"},
		"a conflict":      {apierrors.NewConflict(resource, "x", fmt.Errorf("another owner")), reasonRefused, "another owner"},
		"an internal one": {apierrors.NewInternalError(fmt.Errorf("etcd")), reasonRefused, "etcd"},
		"another":         {fmt.Errorf("odd"), reasonError, "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			got := trouble(object, c.err)
			if got.reason != c.reason || !strings.Contains(got.message, c.says) || !strings.HasPrefix(got.message, `ConfigMap "x": `) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestMemory holds that what one template made is not another's.
func TestMemory(t *testing.T) {
	m := &memory{}
	id := api.TemplateObject{APIVersion: "v1", Kind: "ConfigMap", Namespace: "a", Name: "x"}
	if _, known := m.get("a", id); known {
		t.Error("it knows what it was never told")
	}
	m.set("a", id, written{template: "one", version: "1"})
	if got, known := m.get("a", id); !known || got.template != "one" {
		t.Errorf("got %+v", got)
	}
	if _, known := m.get("b", id); known {
		t.Error("it is known of another tenant")
	}
	m.forget("a")
	if _, known := m.get("a", id); known {
		t.Error("it was to be forgotten")
	}
}
