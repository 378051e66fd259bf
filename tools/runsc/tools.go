//go:build tools

// Package tools names the program that this module pins, so that its requirements are complete.
package tools

import _ "gvisor.dev/gvisor/runsc"
