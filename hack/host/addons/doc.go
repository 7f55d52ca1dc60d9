// Package addons is what the local host has beside bare Kubernetes: a cluster DNS
// and a default StorageClass, each one YAML file.
package addons
