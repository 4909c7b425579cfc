# Posthorn.  One makefile; each folder adds its rows in rules.mk.
comma := ,
VERSION := 0.1.0
.DEFAULT_GOAL := all
PREFIX ?= /usr
SYSCONFDIR ?= /etc
LIBEXEC ?= $(PREFIX)/lib/posthorn
CC ?= gcc
B ?= build
V ?= @

WARN := -Wall -Wextra -Wshadow -Wconversion -Werror
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fPIE
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE -DPOSTHORN_VERSION='"$(VERSION)"' -DPOSTHORN_LIBEXEC='"$(LIBEXEC)"' \
	$(WARN) $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DPOSTHORN_SANITIZED,$(HARDEN)) $(CFLAGS) -Icommon -I.
LDFLAGS_ALL := $(if $(SANITIZE),-fsanitize=address$(comma)undefined,-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now) $(LDFLAGS)

LIBS_base := -levent_core -lseccomp -Wl,--as-needed -lidn2
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
COMMON_SRC :=
PROGRAMS :=
COMMANDS :=
MODULES :=
include $(wildcard common/*/rules.mk) $(sort $(wildcard */rules.mk))

COMMON_OBJ := $(COMMON_SRC:%.c=$(B)/obj/%.o)

all: $(PROGRAMS:%=$(B)/libexec/%) $(MODULES:%=$(B)/libexec/%.so) $(COMMANDS:%=$(B)/%) $(B)/mailq $(B)/newaliases man

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(V)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libcommon.a: $(COMMON_OBJ)
	$(V)rm -f $@ && ar rcs $@ $^

define program_rule
$(B)/libexec/$(1): $$(call obj,$$(SRC_$(1))) $(B)/libcommon.a
	@mkdir -p $$(@D)
	$$(V)$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS_ALL) $$^ $$(LIBS_$(1)) $$(LIBS_base) -o $$@
OBJ_ALL += $$(call obj,$$(SRC_$(1)))
endef
define command_rule
$(B)/$(1): $$(call obj,$$(SRC_$(1))) $(B)/libcommon.a
	@mkdir -p $$(@D)
	$$(V)$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS_ALL) $$^ $$(LIBS_$(1)) $$(LIBS_base) -o $$@
OBJ_ALL += $$(call obj,$$(SRC_$(1)))
endef
# what a program loads when it is wanted: position-independent, with nothing of the program's own
$(B)/obj/module/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(V)$(CC) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -fvisibility=hidden -MMD -MP -c $< -o $@
define module_rule
$(B)/libexec/$(1).so: $$(patsubst %.c,$(B)/obj/module/%.o,$$(SRC_MODULE_$(1)))
	@mkdir -p $$(@D)
	$$(V)$$(CC) $$(filter-out -fPIE,$$(ALL_CFLAGS)) -shared -Wl,-z,relro -Wl,-z,now $$(LDFLAGS) $$^ $$(LIBS_MODULE_$(1)) -o $$@
OBJ_ALL += $$(patsubst %.c,$(B)/obj/module/%.o,$$(SRC_MODULE_$(1)))
endef
$(foreach m,$(MODULES),$(eval $(call module_rule,$(m))))
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$(p))))
$(foreach c,$(COMMANDS),$(eval $(call command_rule,$(c))))

$(B)/mailq $(B)/newaliases: $(B)/sendmail
	$(V)ln -sf sendmail $@


setup:
	@tests/setup.sh $(if $(filter check,$(MAKECMDGOALS)),test)

run: all
	@tests/run.sh $(B)

bench: all
	@tests/bench/run.sh

install: all
	@tests/install.sh "$(B)" "$(DESTDIR)" "$(PREFIX)" "$(LIBEXEC)" "$(SYSCONFDIR)"

clean:
	rm -rf $(B)

-include $(COMMON_OBJ:.o=.d) $(OBJ_ALL:.o=.d)
.PHONY: all setup run check bench evidence asan tidy mutants fuzz install clean man
