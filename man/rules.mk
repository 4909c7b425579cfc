MAN := $(patsubst man/%.in,$(B)/man/%,$(wildcard man/*.in))
$(B)/tools/mangen: man/gen.c man/diagnostics.def $(wildcard */events.def smtpd/*/events.def) common/params/params.def $(B)/libcommon.a
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) $< $(B)/libcommon.a $(LIBS_base) -o $@
$(B)/man/%: man/%.in man/gen.sh $(B)/tools/mangen $(COMMANDS:%=$(B)/%)
	@mkdir -p $(@D)
	$(V)sh man/gen.sh $< $(B) >$@.new && mv $@.new $@
man: $(MAN)
