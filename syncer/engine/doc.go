// Package engine is the one reconciler over any kind: it gathers both sides
// and what a kind's Refs name, has the kind translate, writes what differs,
// and brings back what became of it. It knows no kind.
package engine
