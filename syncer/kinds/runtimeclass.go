package kinds

import (
	"slices"

	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// RuntimeClass of the host is shown to the tenant if its limits name it or give
// it to every pod. A class that the tenant makes stays in the tenant: pods that
// ask for it get the host's of the same handler, if the limits allow one.
func RuntimeClass() translate.Kind[*nodev1.RuntimeClass] {
	return translate.Kind[*nodev1.RuntimeClass]{
		GroupVersionKind: nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource:         "runtimeclasses",
		New:              func() *nodev1.RuntimeClass { return &nodev1.RuntimeClass{} },
		NewList:          func() translate.ObjectList { return &nodev1.RuntimeClassList{} },
		ClusterRules:     []rbacv1.PolicyRule{rule(nodev1.GroupName, readOnly, "runtimeclasses")},
		Unused: func(tenant translate.Tenant) bool {
			return len(tenant.RuntimeClasses) == 0 && tenant.RuntimeClass == ""
		},
		ToVirtual: runtimeClassToVirtual,
		PruneHost: func(host *nodev1.RuntimeClass) { host.Annotations, host.Labels, host.Scheduling = nil, nil, nil },
	}
}

// runtimeClassAllowed tells whether a pod of the tenant may ask for a class of
// the host.
func runtimeClassAllowed(tenant translate.Tenant, name string) bool {
	return name != "" && (name == tenant.RuntimeClass || slices.Contains(tenant.RuntimeClasses, name))
}

func runtimeClassToVirtual(in translate.Input[*nodev1.RuntimeClass]) (*nodev1.RuntimeClass, error) {
	host := in.Host.DeepCopy()
	if !runtimeClassAllowed(in.Tenant, host.Name) {
		return nil, nil
	}
	virtual := &nodev1.RuntimeClass{
		ObjectMeta: translate.VirtualMeta(host, func(string) bool { return false }),
		Handler:    host.Handler,
		// The tenant's quotas and scheduler count the overhead, too.
		Overhead: host.Overhead,
		// Scheduling stays behind: it names the host's labels and taints, and the
		// host applies it to the host pod by itself.
	}
	if old := in.Virtual; old != nil && old.Handler != virtual.Handler {
		// The host's was made anew, and this cannot be changed: so is this one.
		return nil, nil
	}
	return virtual, nil
}
