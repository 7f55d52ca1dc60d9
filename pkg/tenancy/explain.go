package tenancy

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// QuotaLimit begins the names of limits that are quotas: "quota.pods".
const QuotaLimit = limitQuota + "."

// Names of limits, as api.EffectiveLimit has them.
const (
	limitQuota           = "quota"
	limitPodSecurity     = "podSecurity"
	limitServices        = "services"
	limitStorageClasses  = "storageClasses"
	limitIngressClasses  = "ingressClasses"
	limitRuntimeClass    = "runtimeClass"
	limitRuntimeClasses  = "runtimeClasses"
	limitPriorityClasses = "priorityClasses"
	limitTolerations     = "tolerations"
	limitGateways        = "gateways"
	limitHosts           = "hosts"
	limitAnnotations     = "serviceAccountAnnotations"
	limitCustomResources = "customResources"
	limitNodeSelector    = "nodeSelector"
	limitInternet        = "network.internet"
	limitCIDRs           = "network.allowedCIDRs"
	limitPodDefaults     = "podDefaults"
)

// Status is an Effective in the words of a status: each value, and who set it.
// Of limits, those that somebody set, and the defaults that people ask about.
func (e Effective) Status() *api.EffectiveStatus {
	status := &api.EffectiveStatus{Templates: e.Templates}
	for i, member := range e.Members {
		status.Members = append(status.Members, api.EffectiveMember{
			Kind: member.Kind, Name: member.Name, Namespace: member.Namespace, Role: member.Role, From: e.MemberOrigins[i],
		})
	}
	l := e.Limits
	say := func(name, value string) {
		status.Limits = append(status.Limits, api.EffectiveLimit{Name: name, Value: value, From: e.LimitOrigins[name]})
	}
	// A list that nobody set is as its default says: all or none.
	set := func(name string, values []string) {
		if len(e.LimitOrigins[name]) > 0 {
			say(name, listText(values))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Quota)) {
		amount := l.Quota[name]
		say(limitQuota+"."+string(name), amount.String())
	}
	say(limitPodSecurity, string(l.PodSecurity))
	say(limitServices, listText(texts(l.Services, func(s string) string { return s })))
	set(limitStorageClasses, l.StorageClasses)
	set(limitIngressClasses, l.IngressClasses)
	if l.RuntimeClass != "" {
		say(limitRuntimeClass, l.RuntimeClass)
	}
	set(limitRuntimeClasses, l.RuntimeClasses)
	set(limitPriorityClasses, l.PriorityClasses)
	set(limitTolerations, each(l.Tolerations, tolerationText))
	set(limitGateways, l.Gateways)
	set(limitHosts, l.Hosts)
	set(limitAnnotations, l.ServiceAccountAnnotations)
	set(limitCustomResources, each(l.CustomResources, resourceText))
	for _, key := range slices.Sorted(maps.Keys(l.NodeSelector)) {
		say(limitNodeSelector+"."+key, l.NodeSelector[key])
	}
	internet := "Allow"
	if !l.Internet {
		internet = internetDeny
	}
	say(limitInternet, internet)
	set(limitCIDRs, l.AllowedCIDRs)
	if len(e.LimitOrigins[limitPodDefaults]) > 0 {
		say(limitPodDefaults, defaultsText(l.ContainerDefaults))
	}
	return status
}

func listText(values []string) string {
	if len(values) == 0 || slices.Equal(values, []string{api.Nothing}) {
		return "none"
	}
	return strings.Join(values, ", ")
}

func texts[T ~string](values []T, text func(string) string) []string {
	return each(values, func(v T) string { return text(string(v)) })
}

func each[T any](values []T, text func(T) string) []string {
	all := make([]string, 0, len(values))
	for _, value := range values {
		all = append(all, text(value))
	}
	return all
}

func defaultsText(d api.ContainerDefaults) string {
	amounts := map[string]string{}
	for name, amount := range d.Requests {
		amounts["requests."+string(name)] = amount.String()
	}
	for name, amount := range d.Limits {
		amounts["limits."+string(name)] = amount.String()
	}
	return strings.ReplaceAll(metav1.FormatLabelSelector(metav1.SetAsLabelSelector(amounts)), ",", ", ")
}
