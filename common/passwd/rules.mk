COMMON_SRC += $(wildcard common/passwd/*.c)
