// Package docs holds the documents that tests read: where they run, the source tree need not be.
package docs

import _ "embed"

// Differences is differences.md.
//
//go:embed differences.md
var Differences string

// Tools is tools.md.
//
//go:embed tools.md
var Tools string
