// Package helm finds Helm charts and renders them, with Helm's own library. It
// installs nothing: what a chart renders is given to the caller, who applies it.
package helm
