COMMON_SRC += $(wildcard common/smtp/*.c)
