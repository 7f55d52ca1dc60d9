package kinds

import (
	"reflect"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// PriorityClass of the host is shown to the tenant if its limits name it, and
// pods run with it there. The tenant's own stand beside it: they count in the
// tenant, for its scheduler, its quotas and its preemption, and mean nothing to
// the host. A class of the tenant's own by the same name is left alone.
func PriorityClass() translate.Kind[*schedulingv1.PriorityClass] {
	return translate.Kind[*schedulingv1.PriorityClass]{
		GroupVersionKind: schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource:         "priorityclasses",
		New:              func() *schedulingv1.PriorityClass { return &schedulingv1.PriorityClass{} },
		NewList:          func() translate.ObjectList { return &schedulingv1.PriorityClassList{} },
		ClusterRules:     []rbacv1.PolicyRule{rule(schedulingv1.GroupName, readOnly, "priorityclasses")},
		Unused:           func(tenant translate.Tenant) bool { return len(tenant.PriorityClasses) == 0 },
		ToVirtual:        priorityClassToVirtual,
		PruneHost:        func(host *schedulingv1.PriorityClass) { host.Annotations, host.Labels = nil, nil },
	}
}

func priorityClassToVirtual(in translate.Input[*schedulingv1.PriorityClass]) (*schedulingv1.PriorityClass, error) {
	host := in.Host.DeepCopy()
	if !slices.Contains(in.Tenant.PriorityClasses, host.Name) {
		return nil, nil
	}
	virtual := &schedulingv1.PriorityClass{
		ObjectMeta: translate.VirtualMeta(host, func(string) bool { return false }),
		Value:      host.Value,
		// GlobalDefault stays behind: there can be but one, and which is the
		// tenant's to say.
		Description:      host.Description,
		PreemptionPolicy: host.PreemptionPolicy,
	}
	if old := in.Virtual; old != nil && (old.Value != virtual.Value || !reflect.DeepEqual(old.PreemptionPolicy, virtual.PreemptionPolicy)) {
		// The host's was made anew, and these cannot be changed: so is this one.
		return nil, nil
	}
	return virtual, nil
}
