COMMON_SRC += $(wildcard common/dns/*.c)
