package kinds

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// container is for init, sidecar, ordinary and ephemeral containers alike. It
// begins with an empty Container; the fields are in the order of the type.
func (t *podTranslation) container(in *corev1.Container) corev1.Container {
	out := corev1.Container{
		Name:                     in.Name,
		Image:                    in.Image,
		Command:                  slices.Clone(in.Command),
		Args:                     slices.Clone(in.Args),
		WorkingDir:               in.WorkingDir,
		Ports:                    slices.Clone(in.Ports),
		Resources:                corev1.ResourceRequirements{Limits: in.Resources.Limits.DeepCopy(), Requests: in.Resources.Requests.DeepCopy()},
		ResizePolicy:             slices.Clone(in.ResizePolicy),
		RestartPolicy:            in.RestartPolicy,
		VolumeMounts:             slices.Clone(in.VolumeMounts),
		VolumeDevices:            slices.Clone(in.VolumeDevices),
		LivenessProbe:            in.LivenessProbe.DeepCopy(),
		ReadinessProbe:           in.ReadinessProbe.DeepCopy(),
		StartupProbe:             in.StartupProbe.DeepCopy(),
		Lifecycle:                in.Lifecycle.DeepCopy(),
		TerminationMessagePath:   in.TerminationMessagePath,
		TerminationMessagePolicy: in.TerminationMessagePolicy,
		ImagePullPolicy:          in.ImagePullPolicy,
		SecurityContext:          in.SecurityContext.DeepCopy(),
		Stdin:                    in.Stdin,
		StdinOnce:                in.StdinOnce,
		TTY:                      in.TTY,
	}
	for _, rule := range in.RestartPolicyRules {
		out.RestartPolicyRules = append(out.RestartPolicyRules, *rule.DeepCopy())
	}
	for _, from := range in.EnvFrom {
		out.EnvFrom = append(out.EnvFrom, t.envFrom(from))
	}
	out.Env = t.serviceVariables(in)
	for _, variable := range in.Env {
		out.Env = append(out.Env, corev1.EnvVar{Name: variable.Name, Value: variable.Value, ValueFrom: t.valueFrom(variable.ValueFrom)})
	}
	return out
}

func (t *podTranslation) envFrom(in corev1.EnvFromSource) corev1.EnvFromSource {
	out := *in.DeepCopy()
	if out.ConfigMapRef != nil {
		out.ConfigMapRef.Name = t.hostName(out.ConfigMapRef.Name)
	}
	if out.SecretRef != nil {
		out.SecretRef.Name = t.hostName(out.SecretRef.Name)
	}
	return out
}

func (t *podTranslation) valueFrom(in *corev1.EnvVarSource) *corev1.EnvVarSource {
	if in == nil {
		return nil
	}
	out := in.DeepCopy()
	out.FieldRef = t.fieldRef(in.FieldRef)
	if out.ConfigMapKeyRef != nil {
		out.ConfigMapKeyRef.Name = t.hostName(out.ConfigMapKeyRef.Name)
	}
	if out.SecretKeyRef != nil {
		out.SecretKeyRef.Name = t.hostName(out.SecretKeyRef.Name)
	}
	return out
}

// serviceVariables come before the user's own, so that $(VAR) finds them and
// the user's, being later, win. envFrom would come first and lose to them, so
// what it sets is left out.
func (t *podTranslation) serviceVariables(container *corev1.Container) []corev1.EnvVar {
	if len(container.EnvFrom) == 0 {
		return slices.Clone(t.services)
	}
	set := map[string]bool{}
	for _, from := range container.EnvFrom {
		if from.ConfigMapRef != nil {
			if found := translate.Find[*corev1.ConfigMap](t.in.Refs, translate.Virtual, t.pod.Namespace, from.ConfigMapRef.Name); found != nil {
				for key := range found.Data {
					set[from.Prefix+key] = true
				}
			}
		}
		if from.SecretRef != nil {
			if found := translate.Find[*corev1.Secret](t.in.Refs, translate.Virtual, t.pod.Namespace, from.SecretRef.Name); found != nil {
				for key := range found.Data {
					set[from.Prefix+key] = true
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(t.services), func(v corev1.EnvVar) bool { return set[v.Name] })
}

// serviceEnv is what a kubelet would put into every container: variables for
// the Services of the namespace if the pod wants them, and for the API in any
// case (pkg/kubelet, getServiceEnvVarMap).
func serviceEnv(in translate.Input[*corev1.Pod]) []corev1.EnvVar {
	byName := map[string]*corev1.Service{}
	apiServer := translate.Find[*corev1.Service](in.Refs, translate.Virtual, metav1.NamespaceDefault, apiServiceName)
	if apiServer == nil {
		// Not there yet: its address is known all the same.
		apiServer = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: apiServiceName},
			Spec: corev1.ServiceSpec{
				ClusterIP: in.Tenant.APIServiceIP,
				Ports:     []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443}},
			},
		}
	}
	byName[apiServiceName] = apiServer
	if links := in.Virtual.Spec.EnableServiceLinks; links == nil || *links {
		for _, service := range translate.FindAll[*corev1.Service](in.Refs, translate.Virtual, in.Virtual.Namespace) {
			byName[service.Name] = service
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	var env []corev1.EnvVar
	size := 0
	for _, name := range names {
		for _, variable := range variablesOf(byName[name]) {
			env = append(env, variable)
			size += len(variable.Name) + len(variable.Value)
		}
	}
	spec := in.Virtual.Spec
	if size*(len(spec.InitContainers)+len(spec.Containers)+len(spec.EphemeralContainers)) <= maxServiceEnv {
		return env
	}
	own := map[string]bool{}
	for _, variable := range variablesOf(byName[apiServiceName]) {
		own[variable.Name] = true
	}
	used := usedVariables(spec)
	return slices.DeleteFunc(env, func(v corev1.EnvVar) bool { return !own[v.Name] && !used[v.Name] })
}

// maxServiceEnv is how many bytes the variables of Services may take up in a
// pod. A kubelet makes them up when a container starts; here they are part of
// the host pod, and an object has at most 1.5 MiB. Where there are more, pods
// get those of the API server and those that they name.
const maxServiceEnv = 512 << 10

// usedVariables are the names that containers use as $(NAME).
func usedVariables(spec corev1.PodSpec) map[string]bool {
	used := map[string]bool{}
	look := func(texts ...string) {
		for _, text := range texts {
			for {
				_, rest, found := strings.Cut(text, "$(")
				if !found {
					break
				}
				name, _, closed := strings.Cut(rest, ")")
				if closed {
					used[name] = true
				}
				text = rest
			}
		}
	}
	containers := slices.Concat(spec.InitContainers, spec.Containers)
	for _, ephemeral := range spec.EphemeralContainers {
		containers = append(containers, corev1.Container(ephemeral.EphemeralContainerCommon))
	}
	for _, container := range containers {
		look(container.Command...)
		look(container.Args...)
		for _, variable := range container.Env {
			look(variable.Value)
		}
		for _, mount := range container.VolumeMounts {
			look(mount.SubPathExpr)
		}
	}
	return used
}

// apiServiceName is the Service of the API server, in the namespace default.
const apiServiceName = "kubernetes"

// variablesOf follows Kubernetes' documentation, "Discovering services:
// environment variables".
func variablesOf(service *corev1.Service) []corev1.EnvVar {
	ip := service.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(service.Spec.Ports) == 0 {
		return nil
	}
	prefix := variableName(service.Name)
	env := []corev1.EnvVar{
		{Name: prefix + "_SERVICE_HOST", Value: ip},
		{Name: prefix + "_SERVICE_PORT", Value: strconv.Itoa(int(service.Spec.Ports[0].Port))},
	}
	for _, port := range service.Spec.Ports {
		if port.Name != "" {
			env = append(env, corev1.EnvVar{Name: prefix + "_SERVICE_PORT_" + variableName(port.Name), Value: strconv.Itoa(int(port.Port))})
		}
	}
	for i, port := range service.Spec.Ports {
		protocol := port.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		number := strconv.Itoa(int(port.Port))
		url := strings.ToLower(string(protocol)) + "://" + net.JoinHostPort(ip, number)
		if i == 0 {
			env = append(env, corev1.EnvVar{Name: prefix + "_PORT", Value: url})
		}
		of := fmt.Sprintf("%s_PORT_%s_%s", prefix, number, strings.ToUpper(string(protocol)))
		env = append(env,
			corev1.EnvVar{Name: of, Value: url},
			corev1.EnvVar{Name: of + "_PROTO", Value: strings.ToLower(string(protocol))},
			corev1.EnvVar{Name: of + "_PORT", Value: number},
			corev1.EnvVar{Name: of + "_ADDR", Value: ip},
		)
	}
	return env
}

func variableName(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
