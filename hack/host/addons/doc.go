// Package addons is what the local host has beside bare Kubernetes: a cluster DNS
// and a default StorageClass, and when asked metrics-server. Each is one YAML file.
package addons
