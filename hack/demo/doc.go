// Package demo holds `make demo`: demo.sh, which tells and does the main job on
// a local host, and what it installs. Its test keeps the demo's image in step
// with what the local host has.
package demo
