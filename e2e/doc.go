// Package e2e tests Sublet from the outside, on a real node: the built binaries,
// the API types, objects in YAML and Go, and what kubectl and helm say of them.
// It imports nothing of Sublet's but the API.
//
// `make e2e` runs it. It brings the local host up, installs Sublet once, and
// takes down what it brought up. SUBLET_E2E_KUBECONFIG names another cluster to
// use; tests that play with the node itself say so and are left out there.
// SUBLET_E2E_KEEP=1 leaves everything as it is at the end, to look around in.
package e2e
