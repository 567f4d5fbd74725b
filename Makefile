# Aliases; the scripts work without make.
.PHONY: conformance demo test
conformance:
	@scripts/conformance
demo:
	@CI=$(CI) SANDBOX=$(SANDBOX) scripts/demo
test:
	@scripts/test
