// Package tools gets the programs that a node needs onto the machine: Debian's
// packages for what Debian has in a fitting version, Go modules for the rest. It
// touches nothing that is there already.
package tools
