// Package hack holds what keeps this repository in order: the rules about
// imports and package comments, as tests, and the pairs of update and verify
// scripts. The local host stands in hack/host, the demo in hack/demo.
package hack
