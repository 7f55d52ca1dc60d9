// Package supervise is process 1 of the local host: it starts components in
// order, starts again what ends unasked, reaps orphans, and ends all of them
// together. What it knows it writes to a file, for `host up` and `host status`.
package supervise
