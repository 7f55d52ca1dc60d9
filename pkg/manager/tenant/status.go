package tenant

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// Reasons of conditions.
const (
	reasonReady             = "Ready"
	reasonPlaced            = "Placed"
	reasonHasChildren       = "HasChildren"
	reasonCascading         = "Cascading"
	reasonScheduled         = "Scheduled"
	reasonExpiring          = "Expiring"
	reasonExpired           = "Expired"
	reasonApplied           = "Applied"
	reasonWaiting           = "Waiting"
	reasonError             = "Error"
	reasonDeleting          = "Deleting"
	reasonNamespaceReserved = "NamespaceReserved"
	reasonNamespaceTaken    = "NamespaceTaken"
	reasonNamespaceLeaving  = "NamespaceTerminating"
	reasonNamespaceUnfit    = "NamespaceUnfit"
	reasonInvalidLimits     = "InvalidLimits"
	reasonInvalidSpec       = "InvalidVirtualCluster"
	reasonNoStorageClass    = "NoStorageClass"
	reasonKeysLost          = "KeysLost"
	reasonNotApplied        = "NotApplied"
	reasonStarting          = "Starting"
	reasonUnschedulable     = "Unschedulable"
	reasonVolumePending     = "VolumePending"
	reasonImagePullFailed   = "ImagePullFailed"
	reasonContainerFailed   = "ContainerFailed"
	reasonCrashing          = "Crashing"
	reasonPodRefused        = "PodRefused"
	reasonQuotaExceeded     = "QuotaExceeded"
	reasonContentRemaining  = "ContentRemaining"
	reasonHostTaken         = "HostTaken"
)

// state is one reconciliation of one tenant.
type state struct {
	tenant    *api.Tenant
	effective tenancy.Effective
	now       time.Time

	// placed says that the root is reached; path is the way from there to the
	// tenant. Until then effective is as if the tenant were directly below it.
	placed bool
	path   []*api.Tenant
	// newNamespace says that the namespace was made just now, and is empty.
	newNamespace bool
	// What there is of a control plane; nil when there is none.
	statefulSet *appsv1.StatefulSet
	// storage is zero when it cannot be decided.
	storage virtualcluster.Storage
	config  api.ControlPlaneConfig
	// problem is why the control plane cannot be made, found before its turn.
	problem *blocked

	// status is what will be written.
	status       api.TenantStatus
	requeueAfter time.Duration
	// completed says that every phase went through.
	completed bool
	// notApplied are parts of the spec that are stored only, and why.
	notApplied []string
}

// blocked is why a tenant cannot go on, and what to do about it. Trying again
// is of no use: a change to the tenant or to the host starts the next attempt.
type blocked struct {
	reason, message string
}

func (b *blocked) Error() string { return b.message }

func newState(tenant *api.Tenant, now time.Time) *state {
	return &state{
		tenant:    tenant,
		effective: tenancy.Of(tenant),
		now:       now,
		status:    *tenant.Status.DeepCopy(),
	}
}

func (s *state) condition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: s.tenant.Generation,
		LastTransitionTime: metav1.NewTime(s.now),
	})
}

func (s *state) isTrue(kind string) bool {
	return meta.IsStatusConditionTrue(s.status.Conditions, kind)
}

func (s *state) block(kind string, b *blocked) {
	s.condition(kind, metav1.ConditionFalse, b.reason, b.message)
}

// fail notes an error that is tried again. What was true stays so: the error
// is about a change that has not come through, and most are gone in a moment.
func (s *state) fail(kind string, err error) {
	if !s.isTrue(kind) {
		s.condition(kind, metav1.ConditionFalse, reasonError, oneLine(err.Error()))
	}
}

// needed are the conditions that together make a tenant ready.
func needed(t api.TenantType) []string {
	switch t {
	case api.Folder:
		return []string{api.ConditionPlaced, api.ConditionFenceReady}
	case api.Namespace:
		return []string{api.ConditionPlaced, api.ConditionNamespaceReady, api.ConditionFenceReady}
	default:
		return []string{api.ConditionPlaced, api.ConditionNamespaceReady, api.ConditionFenceReady, api.ConditionControlPlaneReady}
	}
}

// summarize derives Ready, the phase and the observed generation from the
// conditions.
func (s *state) summarize(err error) {
	s.noteNotApplied()
	if s.completed && err == nil {
		s.status.ObservedGeneration = s.tenant.Generation
	}
	was := s.tenant.Status.Phase
	for _, kind := range needed(s.effective.Type) {
		c := meta.FindStatusCondition(s.status.Conditions, kind)
		if c != nil && c.Status == metav1.ConditionTrue {
			continue
		}
		reason, message := reasonWaiting, "what comes before is not done yet"
		if c != nil {
			reason, message = c.Reason, c.Message
		}
		s.condition(api.ConditionReady, metav1.ConditionFalse, reason, message)
		switch {
		case was == api.PhaseReady || was == api.PhaseDegraded:
			s.status.Phase = api.PhaseDegraded
		case reason == reasonStarting || reason == reasonWaiting || reason == reasonError:
			s.status.Phase = api.PhaseProvisioning
		default:
			s.status.Phase = api.PhasePending
		}
		return
	}
	if err != nil && was != api.PhaseReady {
		s.condition(api.ConditionReady, metav1.ConditionFalse, reasonError, oneLine(err.Error()))
		if was != api.PhaseDegraded {
			s.status.Phase = api.PhaseProvisioning
		}
		return
	}
	s.status.Phase = api.PhaseReady
	if err != nil && s.isTrue(api.ConditionReady) {
		return // as it was, for the generation that it was about
	}
	s.condition(api.ConditionReady, metav1.ConditionTrue, reasonReady, s.readyMessage())
}

func (s *state) readyMessage() string {
	switch s.effective.Type {
	case api.Folder:
		return "tenants can be made below it"
	case api.Namespace:
		return fmt.Sprintf("use it with: kubectl --namespace %s", s.effective.Namespace)
	default:
		return fmt.Sprintf("use it with: sublet connect %s", s.effective.Name)
	}
}

// noteNotApplied tells what of the spec is stored only.
func (s *state) noteNotApplied() {
	if len(s.notApplied) == 0 {
		meta.RemoveStatusCondition(&s.status.Conditions, api.ConditionFullyApplied)
		return
	}
	s.condition(api.ConditionFullyApplied, metav1.ConditionFalse, reasonNotApplied, strings.Join(s.notApplied, "; "))
}

// noteHosts says which host names somebody else claimed before. A tenant is ready
// all the same.
func (s *state) noteHosts(hosts Hosts) {
	message := ""
	if s.effective.Namespace != "" {
		message = hosts.LateIn(s.effective.Namespace)
	}
	if message == "" {
		meta.RemoveStatusCondition(&s.status.Conditions, api.ConditionHostsFree)
		return
	}
	s.condition(api.ConditionHostsFree, metav1.ConditionFalse, reasonHostTaken, message)
}

// writeStatus writes once, and only what changed.
func (r *Reconciler) writeStatus(ctx context.Context, s *state) error {
	if equality.Semantic.DeepEqual(s.tenant.Status, s.status) {
		return nil
	}
	after := s.tenant.DeepCopy()
	after.Status = s.status
	if err := r.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(s.tenant, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("write the status of tenant %q: %w", s.tenant.Name, err)
	}
	r.record(s)
	return nil
}

// record makes an event of each change of readiness.
func (r *Reconciler) record(s *state) {
	before := meta.FindStatusCondition(s.tenant.Status.Conditions, api.ConditionReady)
	after := meta.FindStatusCondition(s.status.Conditions, api.ConditionReady)
	if after == nil || (before != nil && before.Reason == after.Reason) {
		return
	}
	kind := corev1.EventTypeNormal
	if s.status.Phase == api.PhaseDegraded || s.status.Phase == api.PhasePending {
		kind = corev1.EventTypeWarning
	}
	r.event(s, kind, after.Reason, after.Message)
}

func (r *Reconciler) event(s *state, kind, reason, message string) {
	if r.Recorder != nil {
		r.Recorder.Eventf(s.tenant, nil, kind, reason, "Reconcile", "%s", message)
	}
}

// wakeIn has the tenant looked at again after a time, or sooner.
func (s *state) wakeIn(d time.Duration) {
	if s.requeueAfter == 0 || d < s.requeueAfter {
		s.requeueAfter = d
	}
}

// oneLine keeps a condition readable in a table.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
