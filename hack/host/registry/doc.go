// Package registry answers a node's containerd for every registry there is, with
// the images that the node has already. So pods with imagePullPolicy Always run,
// and whatever else pulls is tested, though nothing leaves the machine.
//
//	pod ─► kubelet ─► containerd ─ HTTP, loopback ─► registry
//	                      ▲                             │
//	                      └───── gRPC: images, content ─┘
//
// The registry private.example is the same with a user ("user") and a password
// ("password"): private.example/registry.k8s.io/pause:3 is registry.k8s.io/pause:3.
//
// It reads only, and serves the part of the distribution protocol that a pull
// needs: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull
package registry
