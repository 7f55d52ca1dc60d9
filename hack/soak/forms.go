package main

import (
	"fmt"
	"math/rand/v2"

	"k8s.io/apimachinery/pkg/runtime/schema"
	imageutils "k8s.io/kubernetes/test/utils/image"
)

// fields are an object as YAML would have it.
type fields = map[string]any

// form is a kind of object as writers make it.
type form struct {
	name     string
	resource schema.GroupVersionResource
	// most is how many names a writer has for it.
	most int
	// make returns all but metadata, anew at random; it need not be valid as a
	// change of what was there.
	make func(r *rand.Rand, names names) fields
}

// revisionLabel says, in each object, which write it comes from.
const revisionLabel = "soak/revision"

// names are those of the other objects of the same namespace and writer.
type names func(form string) string

func forms() []form {
	core := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Version: "v1", Resource: resource}
	}
	of := func(group, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	}
	return []form{
		{"ConfigMap", core("configmaps"), 6, configMap},
		{"Secret", core("secrets"), 6, secret},
		{"Service", core("services"), 6, service},
		{"EndpointSlice", of("discovery.k8s.io", "endpointslices"), 3, endpointSlice},
		{"Pod", core("pods"), 4, pod},
		{"Deployment", of("apps", "deployments"), 2, deployment},
		{"PersistentVolumeClaim", core("persistentvolumeclaims"), 2, claim},
		{"NetworkPolicy", of("networking.k8s.io", "networkpolicies"), 3, networkPolicy},
		{"Ingress", of("networking.k8s.io", "ingresses"), 2, ingress},
		{"PodDisruptionBudget", of("policy", "poddisruptionbudgets"), 2, disruptionBudget},
		{"ServiceAccount", core("serviceaccounts"), 2, serviceAccount},
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func text(r *rand.Rand) string { return fmt.Sprintf("%x", r.Uint64()) }

func configMap(r *rand.Rand, _ names) fields {
	return fields{"data": fields{"value": text(r), pick(r, "a", "b", "c"): text(r)}}
}

func secret(r *rand.Rand, _ names) fields {
	return fields{"stringData": fields{"value": text(r)}}
}

func service(r *rand.Rand, _ names) fields {
	port := func(name string) fields {
		return fields{"name": name, "port": int64(1 + r.IntN(1000)), "targetPort": int64(8080), "protocol": pick(r, "TCP", "UDP")}
	}
	spec := fields{
		"type":                     "ClusterIP",
		"selector":                 fields{"app": pick(r, "x", "y", "z")},
		"ports":                    []any{port("one"), port("two")}[:1+r.IntN(2)],
		"sessionAffinity":          pick(r, "None", "ClientIP"),
		"publishNotReadyAddresses": r.IntN(2) == 0,
	}
	switch r.IntN(5) {
	case 0:
		spec["type"], spec["externalName"] = "ExternalName", "example.com"
		delete(spec, "sessionAffinity")
	case 1:
		spec["clusterIP"] = "None"
	case 2:
		spec["selector"] = nil
	}
	return fields{"spec": spec}
}

func endpointSlice(r *rand.Rand, names names) fields {
	return fields{
		"labels":      fields{"kubernetes.io/service-name": names("Service")},
		"addressType": "IPv4",
		"endpoints":   []any{fields{"addresses": []any{fmt.Sprintf("198.51.100.%d", 1+r.IntN(250))}}},
		"ports":       []any{fields{"name": "one", "port": int64(80), "protocol": "TCP"}},
	}
}

func podSpec(r *rand.Rand, names names) fields {
	optional := true
	spec := fields{
		"terminationGracePeriodSeconds": int64(1),
		"automountServiceAccountToken":  r.IntN(3) > 0,
		"containers": []any{fields{
			"name": "main", "image": imageutils.GetPauseImageName(),
			"resources": fields{"requests": fields{"cpu": "1m", "memory": "1Mi"}},
			"envFrom":   []any{fields{"configMapRef": fields{"name": names("ConfigMap"), "optional": optional}}},
		}},
		"volumes": []any{
			fields{"name": "config", "configMap": fields{"name": names("ConfigMap"), "optional": optional}},
			fields{"name": "secret", "secret": fields{"secretName": names("Secret"), "optional": optional}},
		},
	}
	return spec
}

func pod(r *rand.Rand, names names) fields {
	spec := podSpec(r, names)
	if r.IntN(4) == 0 {
		spec["volumes"] = append(spec["volumes"].([]any), fields{"name": "data", "persistentVolumeClaim": fields{"claimName": names("PersistentVolumeClaim")}})
	}
	return fields{"labels": fields{"app": pick(r, "x", "y", "z")}, "spec": spec}
}

func deployment(r *rand.Rand, names names) fields {
	labels := fields{"app": "z"}
	return fields{"spec": fields{
		"replicas": int64(r.IntN(3)),
		"selector": fields{"matchLabels": labels},
		"template": fields{"metadata": fields{"labels": labels, "annotations": fields{"rolled": pick(r, "one", "two", "three")}}, "spec": podSpec(r, names)},
	}}
}

func claim(*rand.Rand, names) fields {
	return fields{"spec": fields{
		"accessModes": []any{"ReadWriteOnce"},
		"resources":   fields{"requests": fields{"storage": "1Mi"}},
	}}
}

func networkPolicy(r *rand.Rand, _ names) fields {
	return fields{"spec": fields{
		"podSelector": fields{"matchLabels": fields{"app": pick(r, "x", "y", "none")}},
		"policyTypes": []any{"Ingress"},
		"ingress":     []any{fields{"from": []any{fields{"podSelector": fields{"matchLabels": fields{"app": pick(r, "x", "y", "z")}}}}}},
	}}
}

func ingress(r *rand.Rand, names names) fields {
	backend := fields{"service": fields{"name": names("Service"), "port": fields{"number": int64(80)}}}
	return fields{"spec": fields{"rules": []any{fields{
		"host": pick(r, "a", "b") + ".example.com",
		"http": fields{"paths": []any{fields{"path": "/", "pathType": "Prefix", "backend": backend}}},
	}}}}
}

func disruptionBudget(r *rand.Rand, _ names) fields {
	return fields{"spec": fields{"minAvailable": int64(r.IntN(3)), "selector": fields{"matchLabels": fields{"app": pick(r, "x", "y", "z")}}}}
}

func serviceAccount(r *rand.Rand, _ names) fields {
	return fields{"annotations": fields{"value": text(r)}}
}
