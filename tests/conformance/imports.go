//go:build tools

// Package conformance only holds the imports by which `go mod tidy` keeps what the test binaries need.
package conformance

import (
	_ "knative.dev/serving/test/conformance/api/v1"
	_ "knative.dev/serving/test/conformance/api/v1beta1"
	_ "knative.dev/serving/test/conformance/runtime"
)
