# Aliases; the scripts work without make.
.PHONY: conformance demo test test-cluster
conformance:
	@scripts/conformance
demo:
	@CI=$(CI) SANDBOX=$(SANDBOX) scripts/demo
test:
	@scripts/test
test-cluster:
	@scripts/test-cluster
