// Package node is a node of the local host, and its control plane: what
// runs, in which order, with which settings and credentials. One file for each
// component; Components is the list.
package node
