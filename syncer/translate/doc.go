// Package translate is the vocabulary of the syncer: what a kind is, what a
// translation is given, what the host object of a virtual one is called and
// what its metadata says. Everything in it is pure; it knows neither clients
// nor caches, and it imports only k8s.io/api, apimachinery and api/v1alpha1.
package translate
