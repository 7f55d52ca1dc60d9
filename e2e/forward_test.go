//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// forward listens on a local port and carries each connection to a port of a pod
// on the host. It finds the pod again when it was replaced, and lives as long as
// the process.
func forward(config *rest.Config, namespace, pod string, port int) (address string, _ error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return "", err
	}
	target := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	f := &forwarder{
		dialer: spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target),
		port:   port,
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.carry(conn)
		}
	}()
	return listener.Addr().String(), nil
}

type forwarder struct {
	dialer httpstream.Dialer
	port   int
	id     atomic.Int64

	mu     sync.Mutex
	tunnel httpstream.Connection
}

// connection returns the tunnel to the pod, a new one if the last has ended.
func (f *forwarder) connection() (httpstream.Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tunnel != nil {
		select {
		case <-f.tunnel.CloseChan():
		default:
			return f.tunnel, nil
		}
	}
	tunnel, _, err := f.dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	f.tunnel = tunnel
	return tunnel, nil
}

// carry copies both ways until either end closes. The client sees a closed
// connection when there is no pod.
func (f *forwarder) carry(conn net.Conn) {
	defer conn.Close()
	tunnel, err := f.connection()
	if err != nil {
		return
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(f.port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.FormatInt(f.id.Add(1), 10))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	errors, err := tunnel.CreateStream(headers)
	if err != nil {
		_ = tunnel.Close()
		return
	}
	_ = errors.Close() // nothing is sent on it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := tunnel.CreateStream(headers)
	if err != nil {
		_ = tunnel.Close()
		return
	}
	defer tunnel.RemoveStreams(errors, data)
	defer data.Reset()
	defer errors.Reset()
	ended := make(chan struct{}, 3)
	go func() { _, _ = io.Copy(io.Discard, errors); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(conn, data); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(data, conn); ended <- struct{}{} }()
	<-ended
}

func namespacedName(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func intstrFrom(v any) intstr.IntOrString {
	if number, ok := v.(int); ok {
		return intstr.FromInt(number)
	}
	return intstr.FromString(fmt.Sprint(v))
}

// clientcmdConfig is the kubeconfig of a client configuration with a client
// certificate or a token in memory.
func clientcmdConfig(config *rest.Config) *api.Config {
	const name = "e2e"
	return &api.Config{
		Clusters: map[string]*api.Cluster{name: {
			Server:                   config.Host,
			CertificateAuthorityData: config.CAData,
			TLSServerName:            config.ServerName,
		}},
		AuthInfos: map[string]*api.AuthInfo{name: {
			ClientCertificateData: config.CertData,
			ClientKeyData:         config.KeyData,
			Token:                 config.BearerToken,
		}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
}

func tokenRequest() *authenticationv1.TokenRequest { return &authenticationv1.TokenRequest{} }
