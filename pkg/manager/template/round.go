package template

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// Reasons of templates in tenants, and of the condition that sums them up.
const (
	reasonApplied     = "Applied"
	reasonApplying    = "Applying"
	reasonWaiting     = "TenantNotReady"
	reasonUnreachable = "Unreachable"
	reasonNoTemplate  = "NoSuchTemplate"
	reasonInvalid     = "InvalidTemplate"
	reasonUnknownKind = "UnknownKind"
	reasonForbidden   = "Forbidden"
	reasonRefused     = "Refused"
	reasonTaken       = "AlreadyExists"
	reasonHookFailed  = "HookFailed"
	reasonChart       = "ChartNotFound"
	reasonError       = "Error"
)

// problem is why a template cannot be applied, in words for people.
type problem struct {
	reason, message string
	// final says that trying again is of no use: a change of the template or of
	// the tenant starts the next attempt.
	final bool
}

func (p *problem) Error() string { return p.message }

// round is one reconciliation of one tenant.
type round struct {
	tenant  *api.Tenant
	entries []api.AppliedTemplate
	// failed asks for another attempt, after for a look some time later.
	failed bool
	after  time.Duration
	// input is what people want, as far as it was looked at.
	input []any
}

func newRound(tenant *api.Tenant) *round {
	s := &round{tenant: tenant, entries: tenant.DeepCopy().Status.Templates}
	s.input = append(s.input, tenant.UID, tenant.Generation, tenant.Labels, tenant.Status.Path, effective(tenant))
	return s
}

func (s *round) saw(tmpl *api.Template) {
	s.input = append(s.input, tmpl.UID, tmpl.Generation)
}

// entry is that of a template; a new one at first. It is good until the next
// entry is made or dropped.
func (s *round) entry(name string) *api.AppliedTemplate {
	i := slices.IndexFunc(s.entries, func(e api.AppliedTemplate) bool { return e.Name == name })
	if i < 0 {
		s.entries = append(s.entries, api.AppliedTemplate{Name: name, State: api.TemplateWaiting})
		i = len(s.entries) - 1
	}
	return &s.entries[i]
}

func (s *round) drop(name string) {
	s.entries = slices.DeleteFunc(s.entries, func(e api.AppliedTemplate) bool { return e.Name == name })
}

func (s *round) fail(entry *api.AppliedTemplate, p *problem) {
	entry.State, entry.Reason, entry.Message = api.TemplateFailed, p.reason, oneLine(p.message)
	s.failed = s.failed || !p.final
}

// wait says that the tenant is not there yet, of templates that it never had.
func (s *round) wait(wanted []api.EffectiveTemplate, message string) {
	for i := range wanted {
		if entry := s.entry(wanted[i].Name); entry.AppliedAt == nil {
			entry.State, entry.Reason, entry.Message = api.TemplateWaiting, reasonWaiting, message
		}
	}
}

func (s *round) unreachable(wanted []api.EffectiveTemplate, err error) {
	s.wait(wanted, "")
	for i := range wanted {
		if entry := s.entry(wanted[i].Name); entry.AppliedAt == nil {
			entry.Reason, entry.Message = reasonUnreachable, oneLine(err.Error())
		}
	}
	s.failed = true
}

// lookIn has the tenant looked at again after a time, or sooner.
func (s *round) lookIn(d time.Duration) {
	if s.after == 0 || d < s.after {
		s.after = d
	}
}

// condition sums the templates up; nil without any.
func (s *round) condition(now time.Time) *metav1.Condition {
	if len(s.entries) == 0 {
		return nil
	}
	c := &metav1.Condition{
		Type: api.ConditionTemplatesApplied, Status: metav1.ConditionTrue, Reason: reasonApplied,
		Message:            "all templates are applied",
		ObservedGeneration: s.tenant.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	var worst *api.AppliedTemplate
	for i := range s.entries {
		entry := &s.entries[i]
		if entry.State == api.TemplateApplied {
			continue
		}
		if worst == nil || (entry.State == api.TemplateFailed && worst.State != api.TemplateFailed) {
			worst = entry
		}
	}
	if worst != nil {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, worst.Reason, fmt.Sprintf("template %q: %s", worst.Name, worst.Message)
		// Most messages begin so themselves.
		if strings.HasPrefix(worst.Message, fmt.Sprintf("template %q: ", worst.Name)) {
			c.Message = worst.Message
		}
	}
	return c
}

// write writes the part of the status that is this controller's, if it changed.
func (r *Reconciler) write(ctx context.Context, s *round) error {
	condition := s.condition(r.Now())
	change := func(tenant *api.Tenant) {
		tenant.Status.Templates = nil
		for i := range s.entries {
			tenant.Status.Templates = append(tenant.Status.Templates, *s.entries[i].DeepCopy())
		}
		if condition == nil {
			meta.RemoveStatusCondition(&tenant.Status.Conditions, api.ConditionTemplatesApplied)
			return
		}
		meta.SetStatusCondition(&tenant.Status.Conditions, *condition)
	}
	tenant, first := s.tenant, true
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if !first {
			tenant = &api.Tenant{}
			if err := r.Live.Get(ctx, client.ObjectKeyFromObject(s.tenant), tenant); err != nil {
				return err
			}
			if tenant.UID != s.tenant.UID {
				return nil
			}
		}
		first = false
		after := tenant.DeepCopy()
		change(after)
		if equality.Semantic.DeepEqual(tenant.Status, after.Status) {
			return nil
		}
		if err := r.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(tenant, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
		s.tenant = after
		return nil
	})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status of tenant %q: %w", s.tenant.Name, err)
	}
	return nil
}

// oneLine keeps a message readable in a table.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
