UNIT_SRC := $(wildcard tests/unit/*.c)
$(B)/tests/unit: $(call obj,$(UNIT_SRC)) $(B)/libcommon.a
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) $^ -lcheck_pic -lsubunit -lm -lrt -lpthread $(LIBS_base) -o $@
$(call obj,$(UNIT_SRC)): ALL_CFLAGS += -Wno-conversion -Wno-format-truncation -Itests/unit
OBJ_ALL += $(call obj,$(UNIT_SRC))

# man: pages are generated into build/man
check: all $(B)/tests/unit
	@tests/check.sh $(B)
unit: $(B)/tests/unit
	@$(B)/tests/unit
.PHONY: unit
fuzz: all
	@tests/fuzz/fuzz.sh $(abspath $(B)) $(SECONDS_EACH)
mutants: $(B)/tests/unit
	@python3 tests/mutants.py
# a build of its own with the sanitizers; seccomp only logs there
asan:
	@$(MAKE) --no-print-directory B=build-asan SANITIZE=1 CFLAGS="-O1 -g" all build-asan/tests/unit
	@POSTHORN_SLOW=6 tests/check.sh build-asan
tidy:
	@tests/tidy.sh
evidence: all $(B)/tests/unit
	@python3 -W ignore tests/evidence.py $(abspath $(B)) $(NAMES)
