UNIT_SRC := $(wildcard tests/unit/*.c)
$(B)/tests/unit: $(call obj,$(UNIT_SRC)) $(B)/libcommon.a
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) $^ -lcheck_pic -lsubunit -lm -lrt -lpthread -ldb -lcdb -lpcre2-8 -lldap -llber -lgsasl -lcrypt -lssl -lcrypto $(LIBS_base) -o $@
$(call obj,$(UNIT_SRC)): ALL_CFLAGS += -Wno-conversion -Wno-format-truncation -Itests/unit
OBJ_ALL += $(call obj,$(UNIT_SRC))

# man: pages are generated into build/man
check: all $(B)/tests/unit $(B)/tests/replay-smtpd $(B)/tests/replay-smtp
	@tests/check.sh $(B)
unit: $(B)/tests/unit
	@$(B)/tests/unit
.PHONY: unit
fuzz: all
	@tests/fuzz/fuzz.sh $(abspath $(B)) $(SECONDS_EACH)
	@tests/fuzz/plant.sh $(B)
	@tests/fuzz/cover.sh $(B)
cover:
	@tests/fuzz/cover.sh $(B)
.PHONY: cover
mutants:
	@python3 tests/mutants.py $(TABLES)
# a build of its own with the sanitizers; seccomp only logs there
asan:
	@$(MAKE) --no-print-directory B=build-asan SANITIZE=1 CFLAGS="-O1 -g" all build-asan/tests/unit build-asan/tests/replay-smtpd build-asan/tests/replay-smtp
	@POSTHORN_SANITIZED=1 POSTHORN_SLOW=6 tests/check.sh build-asan
tidy:
	@tests/tidy.sh
evidence: all $(B)/tests/unit
	@python3 -W ignore tests/evidence.py $(abspath $(B)) $(NAMES)

# replay: scripts over a program's session code; its main.c stays out, its clock and timers are led to the script
WRAP := event_add event_del event_free clock_mono_ms clock_wall_us malloc calloc realloc
REPLAY_SRC := tests/replay/script.c tests/replay/clock.c
$(B)/tests/replay-smtpd: $(call obj,$(REPLAY_SRC) tests/replay/smtpd.c tests/replay/smtpd_near.c $(filter-out %/main.c,$(SRC_smtpd))) $(B)/libcommon.a
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) $^ $(foreach w,$(WRAP) reply_put,-Wl$(comma)--wrap=$(w)) $(LIBS_smtpd) $(LIBS_base) -o $@
$(call obj,$(wildcard tests/replay/*.c)): ALL_CFLAGS += -Wno-unused-parameter
$(B)/tests/replay-smtp: $(call obj,$(REPLAY_SRC) tests/replay/smtp.c tests/replay/smtp_names.c $(filter-out %/main.c,$(SRC_smtp))) $(B)/libcommon.a
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) $^ $(foreach w,$(WRAP) connect fate_of_reply,-Wl$(comma)--wrap=$(w)) $(LIBS_smtp) $(LIBS_base) -o $@
OBJ_ALL += $(call obj,$(wildcard tests/replay/*.c))
replay: $(B)/tests/replay-smtpd $(B)/tests/replay-smtp
	@$(B)/tests/replay-smtpd --all-rows tests/replay/smtpd/*.rpl
	@$(B)/tests/replay-smtp --all-rows tests/replay/smtp/*.rpl
.PHONY: replay
