# Aliases; the scripts work without make.
.PHONY: demo test
demo:
	@CI=$(CI) SANDBOX=$(SANDBOX) scripts/demo
test:
	@scripts/test
