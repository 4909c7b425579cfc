man:
	@true
