check:
	@echo none
